"""Reading one picture file into 8-bit RGB, and refusing what is no still picture of reasonable size."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps

from spectral_fusion.errors import InputError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif")
SMALLEST_SIDE = 8  # pixels; less than one latent cell of Stable Diffusion


def background_colour(name: str) -> tuple[int, int, int]:
    """(red, green, blue) of a colour name or `#rrggbb`.

    Raises:
        InputError: no such colour.
    """
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        raise InputError(f"background {name!r} is not a colour; give a name such as white or a code #rrggbb") from None


def read_picture(path: Path, background: str = "white") -> Image.Image:
    """The picture in `path`: upright (EXIF rotation applied), 8-bit RGB, transparency flattened on `background`.

    Raises:
        InputError: not readable, truncated, animated, larger than Pillow's limit against decompression bombs,
            or smaller than `SMALLEST_SIDE` pixels.
    """
    return _flatten(_decode(path), background_colour(background))


def read_mask(path: Path) -> Image.Image:
    """The mask in `path` as 8-bit grey: white is the subject, black is not looked at.

    Raises:
        InputError: as `read_picture`, or the mask is black all over.
    """
    picture = _decode(path)
    mask = picture if picture.mode == "L" else _flatten(picture, (0, 0, 0)).convert("L")
    if mask.getextrema() == (0, 0):
        raise InputError(f"{path} is black all over, so nothing would be learned; paint the subject white or remove it")
    return mask


def is_transparent(path: Path) -> bool:
    """Whether the file has an alpha channel or a transparent palette colour; reads the header only."""
    with Image.open(path) as image:
        return image.has_transparency_data


def _decode(path: Path) -> Image.Image:
    """All pixels of `path`, upright, in the file's own mode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS or 0
        raise InputError(f"{path} has more than {limit // 10**6} million pixels; scale it down") from None
    except Exception as error:  # Pillow's readers raise nearly anything on a broken header
        raise InputError(f"{path} is not a readable picture ({_first_line(error)}); replace or remove it") from error
    with image:
        # Cameras write still pictures with an embedded preview as MPO, which counts as two frames.
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise InputError(f"{path} is animated ({frames} frames); save one frame as a still picture")
        if min(image.size) < SMALLEST_SIDE:
            raise InputError(f"{path} is {image.width}x{image.height} px; give at least {SMALLEST_SIDE} px a side")
        try:
            image.load()
            return ImageOps.exif_transpose(image)
        except Exception as error:  # as above, on broken or truncated pixel data
            raise InputError(f"{path} is broken or truncated ({_first_line(error)}); replace or remove it") from error


def _flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """`image` in any mode as 8-bit RGB on `background`."""
    if image.mode.startswith("I"):  # 16 bits a pixel; `convert` would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    flat = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(flat, image).convert("RGB")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
