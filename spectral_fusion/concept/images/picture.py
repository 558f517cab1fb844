"""One picture of a folder as 8-bit RGB, and its mask as 8-bit grey."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from spectral_fusion.errors import InputError, shown
from spectral_fusion.reading import load_picture, read_header
from spectral_fusion.reading.pictures import ENDINGS, HEIF

__all__ = ["ENDINGS", "background_colour", "is_picture", "is_transparent", "read_mask", "read_picture"]


def background_colour(name: str) -> tuple[int, int, int]:
    """(red, green, blue) of a colour name or `#rrggbb`.

    Raises:
        InputError: no such colour.
    """
    try:
        return ImageColor.getrgb(name)[:3]
    except (ValueError, AttributeError, TypeError):
        raise InputError(
            f"background {shown(name)} is not a colour; give a name such as white or a code #rrggbb"
        ) from None


def is_picture(path: Path) -> bool:
    """Whether this is a picture by its name; hidden files are none."""
    return path.suffix.lower() in (*ENDINGS, *HEIF) and not path.name.startswith(".") and path.is_file()


def read_picture(path: Path, background: str = "white") -> Image.Image:
    """The picture in `path`: upright (EXIF rotation applied), 8-bit RGB, transparency flattened on `background`.

    Raises:
        InputError: as `reading.load_picture`.
    """
    return _flatten(load_picture(path), background_colour(background))


def read_mask(path: Path) -> Image.Image:
    """The mask in `path` as 8-bit grey: white is the subject, black is not looked at.

    Raises:
        InputError: as `read_picture`, or the mask is black all over.
    """
    picture = load_picture(path)
    mask = picture if picture.mode == "L" else _flatten(picture, (0, 0, 0)).convert("L")
    if mask.getextrema() == (0, 0):
        raise InputError(f"{path} is black all over, so nothing would be learned; paint the subject white or remove it")
    return mask


def is_transparent(path: Path) -> bool:
    """Whether the file has an alpha channel or a transparent palette colour; reads the header only."""
    return read_header(path).transparent


def _flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """`image` in any mode as 8-bit RGB on `background`."""
    if image.mode.startswith("I"):  # 16 bits a pixel; `convert` would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "F":  # TIFF: numbers of any range
        image = _stretched(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    flat = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(flat, image).convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """Floating point as 8 bits: 0 to 1 where the numbers lie there, else their own range."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), values.max())
    return Image.fromarray(((values - low) / max(high - low, 1e-9) * 255).astype(np.uint8))
