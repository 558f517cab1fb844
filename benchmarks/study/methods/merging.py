"""Merging without data: sums, means, and PEFT's ties and dare_linear."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from peft.utils.merge_utils import dare_linear, ties
from torch import Tensor

from spectral_fusion.base.interface import Base
from spectral_fusion.concept import Concept
from spectral_fusion.fusion import Reduce, fuse
from spectral_fusion.spectral import Factors, additive_factors, sum_factors
from study.methods.applied import Deltas, Fuse
from study.partition import project_onto
from study.training import Adapter

DENSITY = 0.5  # share of the numbers that ties and dare keep: what PEFT's guide on merging uses


def product_fuse(reduce: Reduce) -> Fuse:
    """What this project ships, bands that overlap allowed."""

    @contextmanager
    def fused(base: Base, concepts: Sequence[Adapter]) -> Iterator[None]:
        fusion = fuse(base, dict.fromkeys(concepts, 1.0), reduce=reduce, on_overlap="allow")  # type: ignore[arg-type]
        try:
            yield
        finally:
            fusion.undo()

    return fused


def summed(_: Base, adapters: Sequence[Adapter]) -> Deltas:
    """The sum of the deltas."""
    return {name: sum_factors(present) for name, present in present_factors(adapters)}


def averaged(base: Base, adapters: Sequence[Adapter]) -> Deltas:
    """The sum over the number of concepts, as federated averaging takes it (FedAvg, McMahan et al., 2017)."""
    return {name: Factors(up / len(adapters), down) for name, (up, down) in summed(base, adapters).items()}


def off_bands(_: Base, concepts: Sequence[Adapter]) -> Deltas:
    """The sum of additive concepts, each with its A and B projected off the bands of all others.

    No delta then reaches into a direction that another concept has: `U_j^T delta_i = 0` and `delta_i V_j = 0`.
    """
    spectral = cast(Sequence[Concept], concepts)
    names = dict.fromkeys(name for concept in spectral for name in concept.layers)
    deltas = {}
    for name in names:
        layers = [concept.layers[name].tensors() for concept in spectral if name in concept.layers]
        deltas[name] = sum_factors([off_others(layers, own) for own in range(len(layers))])
    return deltas


def off_others(layers: Sequence[Mapping[str, Tensor]], own: int) -> Factors:
    """The delta of one of several additive concepts in a layer, kept off the bands of the others.

    Args:
        layers: U, S, V, A, B of each; the bands are disjoint.
    """
    tensors = dict(layers[own])
    for basis, shift in (("U", "A"), ("V", "B")):
        for other in (layer for number, layer in enumerate(layers) if number != own):
            tensors[shift] = tensors[shift] - project_onto(other[basis], tensors[shift])
    return additive_factors(**tensors)


def ties_merged(_: Base, loras: Sequence[Adapter]) -> Deltas:
    """PEFT's `combination_type="ties"` (Yadav et al., 2023), all weights one."""
    return {
        name: matrixwise(lambda part: ties(part, torch.ones(len(part)), DENSITY), present)
        for name, present in present_factors(loras)
    }


def dare_merged(_: Base, loras: Sequence[Adapter]) -> Deltas:
    """PEFT's `combination_type="dare_linear"` (Yu et al., 2023), all weights one; which numbers go is seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            name: matrixwise(lambda part: dare_linear(part, torch.ones(len(part)), DENSITY), present)
            for name, present in present_factors(loras)
        }


def matrixwise(combine: Callable[[list[Tensor]], Tensor], factors: Sequence[Factors]) -> Factors:
    """Combine all A and all B by themselves, as PEFT's `add_weighted_adapter` does."""
    down = combine([part.down for part in factors])
    return Factors(combine([part.up for part in factors]), down)


def present_factors(adapters: Sequence[Adapter]) -> Iterator[tuple[str, list[Factors]]]:
    """Each layer that any adapter adapts, with the factors of those that do."""
    for name in dict.fromkeys(name for adapter in adapters for name in adapter.layers):
        yield name, [adapter.factors(name) for adapter in adapters if name in adapter.layers]
