"""Concepts at work in their places while pictures are drawn: live, with nothing merged into a weight."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Protocol

import torch

from spectral_fusion.adapter.masks import Masks
from spectral_fusion.adapter.placed import PlacedDelta, Placement, placed
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.interface import Base, Embeddings, words
from spectral_fusion.base.regions import Region
from spectral_fusion.base.turns import prompts_by_step, settled
from spectral_fusion.errors import InputError
from spectral_fusion.generation.config import GenerateConfig
from spectral_fusion.spectral import Factors

logger = logging.getLogger(__name__)

OVERLAP = 0.01  # part of the picture that two regions may share without a word


class Placeable(Protocol):
    """What can be bound to a place: a concept, or a LoRA read for the base."""

    @property
    def name(self) -> str: ...
    @property
    def trigger(self) -> str: ...
    @property
    def layers(self) -> Mapping[str, object]: ...
    @property
    def words(self) -> Mapping[str, Embeddings]:
        """The words that it brings: trigger -> vectors."""

    def factors(self, layer: str) -> Factors: ...


@dataclass(frozen=True)
class Live:
    """Concepts at work: the weights of those that act everywhere, and the deltas of all, by name and layer."""

    weights: Mapping[str, float]
    layers: Mapping[str, Mapping[str, Factors]]

    @classmethod
    def of(cls, concepts: Mapping[Placeable, float]) -> Live:
        layers = {concept.name: {layer: concept.factors(layer) for layer in concept.layers} for concept in concepts}
        return cls({concept.name: weight for concept, weight in concepts.items()}, layers)


@dataclass(frozen=True)
class Told:
    """What one picture's denoising is told: the picture's own prompt, and that of each region, unconditional first.

    turns: which of the own prompt's rows counts in each step; None where it is one prompt throughout.
    """

    own: Condition
    texts: Sequence[Condition]
    turns: Sequence[int] | None = None


@contextmanager
def concepts_known(base: Base, concepts: Mapping[Placeable, float]) -> Iterator[None]:
    """Within the `with` block the base knows the concepts' words; their deltas act where `bound` says."""
    if concepts and base.fused:
        raise InputError(
            f"concepts {', '.join(base.fused)} are fused into this base; undo that fusion to bind concepts to places"
        )
    with words(base, {trigger: rows for concept in concepts for trigger, rows in concept.words.items()}):
        yield


@contextmanager
def bound(base: Base, config: GenerateConfig, live: Live, size: tuple[int, int]) -> Iterator[tuple[Placement, Told]]:
    """Within the `with` block each concept acts in its regions; one that no region names acts everywhere.

    Args:
        size: (height, width) of the latents.

    Raises:
        InputError: a region names a concept that is not here, or the base cannot do it.
    """
    deltas = placed_deltas(config, live)
    layers = base.layers() if deltas else {}
    kinds = {name: base.layer_kind(name) for delta in deltas for name in delta.layers}
    with placed(layers, kinds, deltas, Masks(config.regions, *size)) as placement:
        told = _tell(base, config, placement)
        apart = base.read_places(told.texts, placement) if told.texts else nullcontext()
        with apart:
            yield placement, told


def placed_deltas(config: GenerateConfig, live: Live) -> list[PlacedDelta]:
    """The deltas of concepts where the settings say: in regions that name them, else everywhere."""
    wanted = [(name, weight, place) for place, region in enumerate(config.regions) for name, weight in region.concepts]
    local = {name for name, _, _ in wanted}
    for name in [*local, *config.spans]:
        if name not in live.layers:
            near = get_close_matches(name, live.layers, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"loaded are {', '.join(live.layers) or 'none'}"
            raise InputError(f"the settings name the concept {name!r}, which is not loaded; {advice}")
    return [
        PlacedDelta(live.layers[name], weight, place, *config.spans.get(name, (0.0, 1.0)))
        for name, weight, place in [*wanted, *((n, w, None) for n, w in live.weights.items() if n not in local)]
    ]


def _tell(base: Base, config: GenerateConfig, placement: Placement) -> Told:
    """Each prompt as the text encoder reads it with the concepts of its region."""

    def read(prompts: Sequence[str], region: int | None) -> Condition:
        with placement.passing(region):
            return base.condition([settled(config.negative_prompt), *prompts], weighted=True)

    by_step = prompts_by_step(config.prompt, config.num_inference_steps)
    prompts = list(dict.fromkeys(by_step))
    turns = [prompts.index(prompt) for prompt in by_step] if len(prompts) > 1 else None
    own = read(prompts, None)
    wanted = [settled(region.prompt or config.prompt) for region in config.regions]
    texts = [read([prompt], number) for number, prompt in enumerate(wanted)]
    if config.guidance_scale <= 1:
        texts = [text[1:2] for text in texts]
    return Told(own, texts, turns)


def bound_names(config: GenerateConfig) -> set[str]:
    """Names of the concepts that act in regions."""
    return {name for region in config.regions for name, _ in region.concepts}


def everywhere(live: Live, regions: Sequence[Region]) -> Live:
    """The regions' concepts at work everywhere, at the weights that the regions give them."""
    return replace(live, weights={**live.weights, **dict(pair for region in regions for pair in region.concepts)})


def alone_in(region: Region, config: GenerateConfig, live: Live) -> tuple[GenerateConfig, Live]:
    """What draws one region's subject by itself: its own concepts everywhere, and those that no region names."""
    weights = {name: weight for name, weight in live.weights.items() if name not in bound_names(config)}
    weights |= dict(region.concepts)
    spans = {name: span for name, span in config.spans.items() if name in weights}
    return replace(config, regions=(), spans=spans), Live(weights, {name: live.layers[name] for name in weights})


def words_of(region: Region, concepts: Mapping[Placeable, float]) -> list[str]:
    """The words that stand for a region's concepts in a prompt."""
    names = {name for name, _ in region.concepts}
    return [word for concept in concepts if concept.name in names for word in concept.words]


def tell_overlaps(regions: Sequence[Region], size: tuple[int, int]) -> None:
    """Say which regions share cells: each acts there at its part of their sum."""
    stacked = [region.mask(*size) for region in regions if not region.is_found]
    for second in range(len(stacked)):
        for first in range(second):
            shared = float(torch.minimum(stacked[first], stacked[second]).mean())
            if shared > OVERLAP:
                numbers, percent = (first + 1, second + 1), round(100 * shared)
                logger.warning("regions %d and %d overlap in %d %% of the picture; they share it", *numbers, percent)
