"""How much concepts get in each other's way: their deltas compared, and measured on one another's prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor, nn

from spectral_fusion.base.interface import Base, words
from spectral_fusion.base.live import apply_delta, factors_on, live_deltas
from spectral_fusion.evaluate.methods import Adapter
from spectral_fusion.spectral import delta_overlap


def overlap_matrix(adapters: Sequence[Adapter]) -> list[list[float]]:
    """|cosine| of each two deltas, as `spectral.delta_overlap` has it, averaged over the layers that both adapt."""
    size = len(adapters)
    matrix = [[1.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i):
            both = [name for name in adapters[i].layers if name in adapters[j].layers]
            values = [delta_overlap(adapters[i].factors(name), adapters[j].factors(name)) for name in both]
            matrix[i][j] = matrix[j][i] = fmean(values) if values else 0.0
    return matrix


@dataclass
class Energy:
    """Sums of squares of one layer's outputs, over everything that went through it."""

    base: float = 0.0
    deltas: list[float] = field(default_factory=list)


@contextmanager
def measure_energy(layers: Mapping[str, nn.Module], adapters: Sequence[Adapter]) -> Iterator[Callable[[], list[float]]]:
    """Watch plain layers at work; what is yielded gives each adapter's activation energy so far.

    Activation energy of delta i is `||delta_i x|| / ||W x||`, the norms over all inputs x that the layer was given,
    averaged over the layers that the adapter adapts. The inputs are not kept, and outputs are as without watching.
    """
    totals = {name: Energy(deltas=[0.0] * len(adapters)) for name in layers}
    factors = {
        name: [factors_on(layer, adapter.factors(name)) if name in adapter.layers else None for adapter in adapters]
        for name, layer in layers.items()
    }

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        @torch.no_grad()
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            totals[name].base += _energy(_without_bias(layer, output))
            for number, delta in enumerate(factors[name]):
                if delta is not None:
                    totals[name].deltas[number] += _energy(apply_delta(layer, inputs[0], delta))

        return hook

    # Before other hooks: these see what the plain layer gives.
    handles = [layer.register_forward_hook(watch(name), prepend=True) for name, layer in layers.items()]
    try:
        yield lambda: [_mean_ratio(number, adapter, totals) for number, adapter in enumerate(adapters)]
    finally:
        for handle in handles:
            handle.remove()


def energy_matrix(base: Base, adapters: Sequence[Adapter], paint: Callable[[Adapter], object]) -> list[list[float]]:
    """[whose delta][whose prompts]: activation energies, each column measured with only that adapter at work.

    Args:
        paint: generates the pictures of one adapter's prompts on the base.
    """
    names = {name for adapter in adapters for name in adapter.layers}
    columns = []
    for adapter in adapters:
        deltas = {name: adapter.factors(name) for name in adapter.layers}
        with live_deltas(base, deltas), words(base, {adapter.trigger: adapter.embeddings}):
            layers = {name: layer for name, layer in base.layers().items() if name in names}
            with measure_energy(layers, adapters) as energies:
                paint(adapter)
        columns.append(energies())
    return [list(row) for row in zip(*columns, strict=True)]


def _without_bias(layer: nn.Module, output: Tensor) -> Tensor:
    if layer.bias is None:
        return output
    return output - (layer.bias[:, None, None] if isinstance(layer, nn.Conv2d) else layer.bias)


def _energy(activations: Tensor) -> float:
    return float(activations.float().square().sum())


def _mean_ratio(number: int, adapter: Adapter, totals: Mapping[str, Energy]) -> float:
    seen = [totals[name] for name in adapter.layers if totals[name].base > 0]
    return fmean((energy.deltas[number] / energy.base) ** 0.5 for energy in seen) if seen else 0.0
