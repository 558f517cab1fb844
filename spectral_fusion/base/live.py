"""Deltas at work beside the plain weights, by forward hooks: nothing in a model is replaced or changed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F

from spectral_fusion.base.interface import Base
from spectral_fusion.spectral import Factors


def apply_delta(layer: nn.Module, x: Tensor, delta: Factors) -> Tensor:
    """`delta x` for a linear or convolution layer, in float32, without the bias; the factors lie where x does."""
    up, down, x = delta.up, delta.down, x.float()
    if isinstance(layer, nn.Conv2d):
        kernel = down.unflatten(1, layer.weight.shape[1:])
        hidden = F.conv2d(x, kernel, None, layer.stride, layer.padding, layer.dilation)
        return F.conv2d(hidden, up[:, :, None, None])
    return F.linear(F.linear(x, down), up)


def factors_on(layer: nn.Module, delta: Factors) -> Factors:
    """The factors on the device of a layer."""
    return Factors(delta.up.to(layer.weight.device), delta.down.to(layer.weight.device))


@contextmanager
def live_deltas(base: Base, deltas: Mapping[str, Factors]) -> Iterator[None]:
    """Within the `with` block each layer's output has its delta's in it; a layer is named as in `Base.layers`."""

    def adding(delta: Factors) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            nonlocal delta
            if delta.up.device != output.device:  # an offloaded layer lay elsewhere
                delta = Factors(delta.up.to(output.device), delta.down.to(output.device))
            return output + apply_delta(layer, inputs[0], delta).to(output.dtype)

        return hook

    layers = base.layers()
    handles = [
        layers[name].register_forward_hook(adding(factors_on(layers[name], delta))) for name, delta in deltas.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
