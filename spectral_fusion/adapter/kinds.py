"""The kinds of layers that take a spectral adapter, and their weights as matrices (out, in)."""

from torch import Tensor, bfloat16, float16, float32, float64, nn
from transformers.pytorch_utils import Conv1D

from spectral_fusion.errors import InputError
from spectral_fusion.spectral import as_matrix

PLAIN = (float16, bfloat16, float32, float64)


def check_kind(name: str, layer: nn.Module) -> None:
    """Raises InputError where a layer takes no spectral adapter."""
    if not isinstance(layer, (nn.Linear, nn.Conv2d, Conv1D)) or getattr(layer, "groups", 1) != 1:
        raise InputError(
            f"{name!r} is a {type(layer).__name__}; spectral adapters fit nn.Linear, transformers' Conv1D and "
            "ungrouped nn.Conv2d"
        )


def is_quantised(layer: nn.Module) -> bool:
    """Whether a layer's weight holds no plain numbers, so that it can be neither decomposed nor merged into."""
    weight = layer.weight
    return weight.dtype not in PLAIN or type(weight.data) is not Tensor


def matrix_shape(layer: nn.Module) -> tuple[int, int]:
    """(out, in) of a layer's weight as a matrix, whatever the weight is stored as."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, Conv1D):
        return layer.nf, layer.nx
    height, width = layer.kernel_size
    return layer.out_channels, layer.in_channels * height * width


def weight_shape(layer: nn.Module) -> tuple[int, ...]:
    """The shape of a layer's weight, of a quantised one as it was before."""
    return matrix_shape(layer) if is_quantised(layer) else tuple(layer.weight.shape)


def matrix_of(layer: nn.Module) -> Tensor:
    """(out, in): the weight of a layer. `Conv1D` of GPT-2 stores it as (in, out)."""
    return layer.weight.T if isinstance(layer, Conv1D) else as_matrix(layer.weight)


def like_weight(matrix: Tensor, layer: nn.Module) -> Tensor:
    """A matrix (out, in) in the shape in which the layer stores its weight; the inverse of `matrix_of`."""
    return matrix.T if isinstance(layer, Conv1D) else matrix.view(layer.weight.shape)


def features(layer: nn.Module) -> tuple[int, int]:
    """Inputs and outputs, channels of a convolution."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    rows, columns = matrix_shape(layer)
    return columns, rows
