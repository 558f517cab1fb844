"""One picture of a folder as 8-bit RGB, and its mask as 8-bit grey."""

from pathlib import Path

from PIL import Image, ImageColor

from spectral_fusion.errors import InputError, shown
from spectral_fusion.reading import load_picture, read_header
from spectral_fusion.reading.modes import BLACK, as_rgb
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
    return as_rgb(load_picture(path), background_colour(background))


def read_mask(path: Path) -> Image.Image:
    """The mask in `path` as 8-bit grey: white is the subject, black is not looked at.

    Raises:
        InputError: as `read_picture`, or the mask is black all over.
    """
    picture = load_picture(path)
    mask = picture if picture.mode == "L" else as_rgb(picture, BLACK).convert("L")
    if mask.getextrema() == (0, 0):
        raise InputError(f"{path} is black all over, so nothing would be learned; paint the subject white or remove it")
    return mask


def is_transparent(path: Path) -> bool:
    """Whether the file has an alpha channel or a transparent palette colour; reads the header only."""
    return read_header(path).transparent
