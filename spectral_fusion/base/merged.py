"""Deltas in a base's weights, and out again bit for bit: the one place where weights change places."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from spectral_fusion.base.interface import Base
from spectral_fusion.spectral import Factors, add_factors


class MergedWeights:
    """The weights of some layers with deltas added, ready to change places with the plain ones.

    The plain tensors are kept, not subtracted back, so that the way back is exact in every precision.

    Args:
        layers: names of layers of the base.
        delta: the delta of a layer.

    Raises:
        InputError: the base is quantised.
    """

    def __init__(self, base: Base, layers: Sequence[str], delta: Callable[[str], Factors]) -> None:
        base.refuse_quantised("fused into")
        present = base.layers()
        self._parameters: list[nn.Parameter] = [present[name].weight for name in layers]
        self._merged: list[Tensor] = [
            add_factors(parameter.detach(), delta(name))
            for name, parameter in zip(layers, self._parameters, strict=True)
        ]
        self._plain: list[Tensor] = []

    def put(self) -> None:
        """Let the base use the merged weights."""
        self._plain = [parameter.data for parameter in self._parameters]
        for parameter, merged in zip(self._parameters, self._merged, strict=True):
            parameter.data = merged

    def take(self) -> None:
        """The inverse of `put`, also after the base was moved to another device or type."""
        for parameter, plain in zip(self._parameters, self._plain, strict=True):
            parameter.data = plain.to(parameter.device, parameter.dtype)
        self._plain = []

    def drop_merged(self) -> None:
        """Keep no second hold of the merged weights: for those that are put once, not time and again."""
        self._merged = []

    @contextmanager
    def present(self) -> Iterator[None]:
        """Within the `with` block the base uses the merged weights."""
        self.put()
        try:
            yield
        finally:
            self.take()
