"""Neighbours: concepts that a new one is trained beside, so that all of them stay themselves in one picture.

In half of the steps the neighbours' deltas are in the weights. There the subject's own pictures are learned as always,
and what base and neighbours draw together is rehearsed, so the new concept neither minds them nor touches them
("Learning without Forgetting", Li and Hoiem, 2016). The neighbours' own files stay as they are.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from diffusers import StableDiffusionPipeline
from torch import Tensor

from spectral_fusion.concept import Concept, Library
from spectral_fusion.concept.fingerprint import pipeline_layers
from spectral_fusion.errors import InputError
from spectral_fusion.pipeline.tokens import add_all_tokens, remove_all_tokens
from spectral_fusion.spectral import Factors, add_factors, sum_factors
from spectral_fusion.train.config import TrainConfig
from spectral_fusion.train.loop import Lesson
from spectral_fusion.train.neutral import DECOY, neutral_prompts
from spectral_fusion.train.randomness import generator
from spectral_fusion.train.rehearsal import Rehearsal, rehearsal, remember

MOST = 16  # that "all" means: they share the rehearsed prompts, and with more it has not been tried
PLAIN = 1 / 3  # of those prompts speak of no neighbour


class Neighbour(Protocol):
    """A trained subject; a `Concept` is one."""

    @property
    def trigger(self) -> str: ...
    @property
    def class_word(self) -> str: ...
    @property
    def embeddings(self) -> Tensor: ...
    @property
    def layers(self) -> Mapping[str, Any]: ...

    def factors(self, layer: str) -> Factors:
        """The delta of one layer at weight one."""


class Crowd:
    """The weights of a base with its neighbours' deltas, ready to change places with the plain ones."""

    def __init__(self, pipeline: StableDiffusionPipeline, neighbours: Sequence[Neighbour]) -> None:
        layers = pipeline_layers(pipeline)
        names = dict.fromkeys(name for neighbour in neighbours for name in neighbour.layers)
        self._weights = [
            (layers[name].weight, add_factors(layers[name].weight.detach(), _joint(neighbours, name))) for name in names
        ]

    @contextmanager
    def present(self) -> Iterator[None]:
        """Within the `with` block the neighbours' deltas are in the weights; afterwards, bit for bit, they are not."""
        plain = [parameter.data for parameter, _ in self._weights]
        for parameter, together in self._weights:
            parameter.data = together
        try:
            yield
        finally:
            for (parameter, _), weight in zip(self._weights, plain, strict=True):
                parameter.data = weight


def _joint(neighbours: Sequence[Neighbour], layer: str) -> Factors:
    return sum_factors([neighbour.factors(layer) for neighbour in neighbours if layer in neighbour.layers])


@contextmanager
def lessons(
    pipeline: StableDiffusionPipeline, config: TrainConfig, neighbours: Sequence[Neighbour] = ()
) -> Iterator[list[Lesson]]:
    """What a concept is taught besides its pictures: alone, and beside its neighbours where it has any.

    Within the `with` block the pipeline knows the tokens that the lessons speak of; afterwards it is as before.

    Args:
        pipeline: the base, without the concept.
        config: resolved settings.
    """
    with rehearsal(pipeline, config) as alone:
        if not neighbours:
            yield [Lesson(alone)]
            return
        crowd = Crowd(pipeline, neighbours)
        add_all_tokens(pipeline, {neighbour.trigger: neighbour.embeddings for neighbour in neighbours})
        try:
            rehearsed = []
            if config.rehearsal_prompts:
                captions = neighbour_captions(pipeline, config, neighbours)
                with crowd.present():
                    rehearsed = [Rehearsal(remember(pipeline, captions, config), config.seed)]
            yield [Lesson(alone), Lesson(rehearsed, crowd.present)]
        finally:
            remove_all_tokens(pipeline, [neighbour.trigger for neighbour in neighbours])


def neighbour_captions(
    pipeline: StableDiffusionPipeline, config: TrainConfig, neighbours: Sequence[Neighbour]
) -> list[str]:
    """Prompts about each neighbour in turn, and plain ones."""
    tokenizer, count = pipeline.tokenizer, config.rehearsal_prompts
    plain = round(count * PLAIN)
    captions = []
    for place, neighbour in enumerate(neighbours):
        share = len(range(place, count - plain, len(neighbours)))
        source = generator(config.seed, "neighbour", neighbour.trigger)
        for prompt in neutral_prompts(tokenizer, neighbour.class_word, share, source, decoys=1.0):
            subject = f"{neighbour.trigger} {neighbour.class_word}"
            captions.append(prompt.text.replace(f"{DECOY} {prompt.noun}", subject))
    source = generator(config.seed, "among neighbours")
    return captions + [p.text for p in neutral_prompts(tokenizer, config.class_word, plain, source, decoys=0.0)]


def choose_neighbours(library: Library, config: TrainConfig, base: str) -> list[Concept]:
    """The concepts that `config.beside` asks for: by name, none, or all of the library that were trained on this base.

    All means at most `MOST`: those of the own class first, then those of the lowest bands.

    Args:
        base: fingerprint of the base.

    Raises:
        InputError: a name is not in the library, is the concept's own, or is of another base.
    """
    if config.beside in ((), ("none",)):
        return []
    if config.beside == ("all",):
        others = [info for info in library.list() if info.base == base and info.name != config.name]
        others.sort(key=lambda info: (info.class_word != config.class_word, info.band.index, info.name))
        return [library.get(info.name) for info in others[:MOST]]
    return [_named(library, config, name, base) for name in config.beside]


def _named(library: Library, config: TrainConfig, name: str, base: str) -> Concept:
    if name == config.name:
        raise InputError(f"{name!r} cannot be trained beside itself; leave it out of --beside")
    concept = library.get(name)
    if concept.base != base:
        raise InputError(
            f"{name!r} was trained on base {concept.base} {concept.base_name}, this training is on {base}; "
            "leave it out of --beside"
        )
    return concept


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """A hash of each neighbour's file, by name: what a training depends on."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items()}


def settings_beside(config: TrainConfig, neighbours: Sequence[Neighbour]) -> TrainConfig:
    """Without a cache of captions where neighbours change the text encoder: it would mix alone and beside."""
    changed = any(layer.startswith("text_encoder.") for neighbour in neighbours for layer in neighbour.layers)
    return replace(config, cache_text=False) if changed else config
