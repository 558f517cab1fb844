"""Picture files: their format, their frames, their size."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from spectral_fusion.errors import InputError

# Pillow reads only what is imported, and of that only what is named: no PostScript, no formats that nobody sends.
READERS = (
    JpegImagePlugin.JpegImageFile,  # opens MPO too, a camera's JPEG with a preview inside
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    AvifImagePlugin.AvifImageFile,
    TiffImagePlugin.TiffImageFile,
)
FORMATS = tuple(str(reader.format) for reader in READERS)
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".avif", ".tif", ".tiff")
HEIF = (".heic", ".heif")  # phones; needs the extra
SMALLEST_SIDE = 8  # pixels; less than one latent cell of Stable Diffusion
KNOWN = {  # how files begin that bear the ending of a picture and are none that is opened
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"GIF8": "a GIF",
    b"DDS ": "a DDS texture",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"<svg": "an SVG",
    b"<?xm": "XML",
    b"<htm": "a web page",
    b"<!DO": "a web page",
}


@dataclass(frozen=True)
class PictureHeader:
    """What a picture file says before its pixels: size as stored, format, and the texts that it carries."""

    width: int
    height: int
    format: str
    transparent: bool
    texts: Mapping[str, str] = field(default_factory=dict)
    comment: bytes | str | None = None
    """EXIF's UserComment, in whichever code it is."""
    exif: tuple[str, ...] = ()
    """Maker and model, where cameras have them and some tools their settings."""


def load_picture(path: Path, *, smallest: int = SMALLEST_SIDE) -> Image.Image:
    """All pixels of the still picture in `path`, upright, in the file's own mode.

    Raises:
        InputError: not readable, of a format that is not of `FORMATS`, truncated, animated, larger than Pillow's limit
            against decompression bombs, or smaller than `smallest` pixels a side.
    """
    with _opened(path, smallest) as image, _broken(path):
        image.load()
        return ImageOps.exif_transpose(image)


def read_header(path: Path) -> PictureHeader:
    """What the picture in `path` says of itself, its pixels unread. Raises InputError, as `load_picture`."""
    with _opened(path, 1) as image, _broken(path):
        exif = image.getexif()
        texts = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
        comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
        maker = [exif.get(tag) for tag in (ExifTags.Base.Make, ExifTags.Base.Model)]
        return PictureHeader(
            *image.size,
            image.format or "",
            image.has_transparency_data,
            texts,
            comment if isinstance(comment, (bytes, str)) else None,
            tuple(text for text in maker if isinstance(text, str)),
        )


@contextmanager
def _opened(path: Path, smallest: int) -> Iterator[Image.Image]:
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise InputError(f"{path} is not a readable picture (it {what}); give a picture file")
    formats = FORMATS + (("HEIF",) if _heif(path) else ())
    with _broken(path, opening=True):
        image = Image.open(path, formats=formats)
    with image:
        with _broken(path):
            width, height, frames = *image.size, int(getattr(image, "n_frames", 1))
        if min(width, height) < smallest:
            raise InputError(f"{path} is {width}x{height} px; give at least {smallest} px a side")
        if width * height > (Image.MAX_IMAGE_PIXELS or 2**27):
            raise _too_large(path)
        if frames > 1 and image.format != "MPO":
            raise InputError(f"{path} is animated ({frames} frames); save one frame as a still picture")
        yield image


@contextmanager
def _broken(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Pillow's readers raise nearly anything on broken data, and warn of odd metadata that does not matter here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except Exception as error:
        if opening:
            reason = _kind(path) or _line(error)
            raise InputError(f"{path} is not a readable picture ({reason}); replace or remove it") from error
        raise InputError(f"{path} is broken or truncated ({_line(error)}); replace or remove it") from error


def _too_large(path: Path) -> InputError:
    return InputError(
        f"{path} has more than {(Image.MAX_IMAGE_PIXELS or 2**27) // 10**6} million pixels; scale it down"
    )


def _heif(path: Path) -> bool:
    """Whether the file is HEIF by its ending, its reader then made known to Pillow.

    Raises:
        InputError: the reader is not installed.
    """
    if path.suffix.lower() not in HEIF:
        return False
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise InputError(
            f"{path} is a HEIF picture, which needs an extra: pip install 'spectral-fusion[heif]'; or save it as JPEG"
        ) from None
    register_heif_opener()
    return True


def _kind(path: Path) -> str | None:
    """What a file is that is not opened, from how it begins."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError as error:
        return error.strerror
    if not start:
        return "it is empty"
    return next((f"it is {name}" for begin, name in KNOWN.items() if start.startswith(begin)), None)


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
