"""Painted masks as text, small enough for a picture's settings: a PNG of at most 128 pixels a side, in base64."""

from __future__ import annotations

import base64
import binascii
import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from spectral_fusion.errors import InputError
from spectral_fusion.reading.modes import BLACK, as_rgb
from spectral_fusion.reading.pictures import load_picture

SIDE = 128  # latents of 1024 pixels have as many cells


def read_mask(path: str | Path) -> str:
    """A mask file: what is white belongs to the place, and what is transparent does not.

    Raises:
        InputError: no picture, one that is too large, or one that is black everywhere.
    """
    return mask_text(load_picture(Path(path), smallest=1), str(path))


def mask_text(image: Image.Image, name: str = "mask") -> str:
    """A mask of any size and mode as text. Raises InputError where nothing of it is white."""
    grey = as_rgb(image, BLACK).convert("L")
    grey.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    if not grey.getbbox():
        raise InputError(f"mask {name} is empty: it is black everywhere; paint white where the region is")
    buffer = io.BytesIO()
    grey.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def tensor_text(values: Tensor) -> str:
    """(height, width) of 0 to 1 as text."""
    return mask_text(Image.fromarray((values.clamp(0, 1) * 255).round().byte().cpu().numpy(), "L"))


@lru_cache(maxsize=64)
def mask_tensor(text: str) -> Tensor:
    """The inverse: (height, width) of 0 to 1. Raises InputError where the text is no mask."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
            if max(image.size) > SIDE:
                raise ValueError(f"{image.width}x{image.height} pixels")
            return torch.from_numpy(np.array(image.convert("L"), dtype=np.float32) / 255)
    except (binascii.Error, OSError, UnidentifiedImageError, SyntaxError, ValueError, TypeError) as error:
        raise InputError(f"a region's mask cannot be read ({error}); paint it again") from error
