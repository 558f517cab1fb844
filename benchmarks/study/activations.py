"""What layers are given: second moments of their inputs, from which every quadratic in a delta can be computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spectral_fusion.base.interface import Base
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Factors

Grams = dict[str, Tensor]


@contextmanager
def watched_inputs(layers: Mapping[str, nn.Linear]) -> Iterator[Grams]:
    """Sum `x x^T` (in, in) over all inputs x that each layer is given within the `with` block, in float64."""
    sums: Grams = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        @torch.no_grad()
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).double()
            sums[name] = sums.get(name, 0) + x.T @ x

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def linear_layers(base: Base, names: Iterable[str]) -> dict[str, nn.Linear]:
    """The plain layers of these names.

    Raises:
        InputError: one is no linear layer.
    """
    present = base.layers()
    layers = {name: present[name] for name in names}
    for name, layer in layers.items():
        if not isinstance(layer, nn.Linear):
            raise InputError(f"{name} is a {type(layer).__name__}; layer inputs are read of linear layers only")
    return layers


def output_energy(delta: Factors, gram: Tensor) -> Tensor:
    """Sum of `||delta x||^2` over the inputs whose `x x^T` sum to `gram` (in, in): `tr(delta gram delta^T)`; ()."""
    up, down = delta
    return ((up.T @ up) * (down @ gram @ down.T)).sum()
