"""Routing on a base: what passes through its layers on each concept's own prompts, and the joint delta made from that.

The formula is `spectral.routing`'s. No photos and no training: a few prompts of triggers and classes, a few steps each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spectral_fusion.base.interface import Base, Embeddings, words
from spectral_fusion.base.merged import MergedWeights
from spectral_fusion.spectral import SHRINKAGE, Factors, route_factors, sum_factors

PROMPTS = ("a photo of a {}", "a {} on grass", "a {} in a room")
STEPS = 6


class Routable(Protocol):
    """What can be routed: a concept, or a LoRA read for the base."""

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> Mapping[str, object]: ...
    @property
    def trigger(self) -> str: ...
    @property
    def words(self) -> Mapping[str, Embeddings]: ...
    def factors(self, layer: str) -> Factors: ...


@dataclass(frozen=True)
class Routed:
    """The joint deltas, by layer, and what they cost.

    passes: of single pictures through the denoiser.
    """

    deltas: Mapping[str, Factors]
    seconds: float
    passes: int


def route(
    base: Base,
    subjects: Mapping[Any, float],
    *,
    prompts: Sequence[str] = PROMPTS,
    steps: int = STEPS,
    seed: int = 0,
    shrinkage: float = SHRINKAGE,
) -> Routed:
    """The joint delta of each layer that acts on the inputs of each subject as that subject does alone.

    Args:
        subjects: `Routable`, with their weights.
        prompts: `{}` stands for a subject's trigger and class.
        seed: of the noise that the steps begin from, the same for every subject.
        shrinkage: see `spectral.routing_matrix`.

    Returns:
        As many factors as the sum has. The base is as before.
    """
    began = time.perf_counter()
    members = {
        layer: [subject for subject in subjects if layer in subject.layers]
        for layer in dict.fromkeys(name for subject in subjects for name in subject.layers)
    }
    parts = {
        layer: [Factors(f.up * subjects[s], f.down) for s in own for f in (s.factors(layer),)]
        for layer, own in members.items()
    }
    downs = {layer: sum_factors(own).down for layer, own in parts.items()}
    grams: dict[str, list[Tensor]] = {layer: [] for layer in parts}
    for subject, weight in subjects.items():
        seen = _grams(base, subject, weight, downs, prompts, steps, seed)
        for layer, own in members.items():
            if subject in own:
                grams[layer].append(seen[layer])
    deltas = {layer: route_factors(own, grams[layer], shrinkage) for layer, own in parts.items()}
    return Routed(deltas, time.perf_counter() - began, len(subjects) * (len(prompts) + 1) * steps)


def _grams(
    base: Base,
    subject: Any,
    weight: float,
    downs: Mapping[str, Tensor],
    prompts: Sequence[str],
    steps: int,
    seed: int,
) -> dict[str, Tensor]:
    """`E[z z^T]` of each layer, `z = down x`, on the subject's prompts with the subject alone at work."""
    spoken = f"{subject.trigger} {getattr(subject, 'class_word', '')}".strip()
    told_words = [*(prompt.replace("{}", spoken).strip() for prompt in prompts), ""]  # what guidance takes away too
    alone = MergedWeights(base, list(subject.layers), lambda layer: _scaled(subject.factors(layer), weight))
    noise = torch.randn(
        len(told_words), *base.latent_shape(base.size, base.size), generator=torch.Generator().manual_seed(seed)
    )
    with words(base, subject.words), alone.present(), watched_grams(base.layers(), downs) as found, torch.no_grad():
        condition = base.condition(told_words)
        source = torch.Generator().manual_seed(seed)
        for _ in base.denoise(condition, noise, sampler=base.plain_sampler, steps=steps, generator=source):
            pass
    return found()


def _scaled(factors: Factors, weight: float) -> Factors:
    return Factors(factors.up * weight, factors.down)


@contextmanager
def watched_grams(
    layers: Mapping[str, nn.Module], downs: Mapping[str, Tensor]
) -> Iterator[Callable[[], dict[str, Tensor]]]:
    """Watch plain layers at work; what is yielded gives `E[z z^T]`, `z = down x`, over all that passed so far."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        down = downs[name].to(layers[name].weight.device)

        @torch.no_grad()
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            z = _read(layer, inputs[0].float(), down)
            sums[name] = sums.get(name, 0) + (z.T @ z).double().cpu()
            counts[name] = counts.get(name, 0) + len(z)

        return hook

    handles = [layers[name].register_forward_hook(watch(name)) for name in downs]
    empty = {name: torch.zeros(len(down), len(down), dtype=torch.float64) for name, down in downs.items()}
    try:
        yield lambda: {name: sums[name] / counts[name] if name in sums else empty[name] for name in downs}
    finally:
        for handle in handles:
            handle.remove()


def _read(layer: nn.Module, x: Tensor, down: Tensor) -> Tensor:
    """(samples, R): `down x` at every place that the layer reads."""
    if isinstance(layer, nn.Conv2d):
        kernel = down.unflatten(1, layer.weight.shape[1:])
        return layer._conv_forward(x, kernel, None).movedim(1, -1).flatten(0, -2)
    return (x @ down.T).flatten(0, -2)
