"""Numbers that hold: a model in float32 for a while, pictures that are finite."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spectral_fusion.base.quiet import quietly
from spectral_fusion.errors import InputError


def check_pixels(pixels: Tensor) -> None:
    """Raises InputError where a picture holds numbers that are not finite: it would come out black."""
    if not torch.isfinite(pixels).all():
        raise InputError(
            "the picture holds numbers that are not finite; lower the weights of the concepts, use --precision fp32, "
            "or get the base again"
        )


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Within the `with` block the model's weights are float32; afterwards they are, bit for bit, as before."""
    before = next(model.parameters()).dtype
    if before != torch.float32:
        with quietly():
            model.to(torch.float32)
    try:
        yield
    finally:
        if before != torch.float32:
            with quietly():
                model.to(before)
