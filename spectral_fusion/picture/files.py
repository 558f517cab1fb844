"""Pictures on disk: written with their settings, and the settings read back."""

import os
import re
from os.path import exists
from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin

from spectral_fusion.atomic import atomic_file, mend
from spectral_fusion.errors import InputError
from spectral_fusion.picture.parameters import KEY, Parameters
from spectral_fusion.reading import PictureHeader, read_header

UNICODE = b"UNICODE\0"
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
NUMBERED = re.compile(r"(\d{5,18})-.*")
# Where other tools keep theirs: SwarmUI, Fooocus (as AUTOMATIC1111), InvokeAI, ComfyUI.
TEXT_KEYS = (KEY, "invokeai_metadata", "sd-metadata", "prompt")
UNREADABLE = {"Dream": "InvokeAI 1", "workflow": "ComfyUI, without the values of its graph"}


def save_picture(
    image: Image.Image, path: str | Path, parameters: Parameters | str, *, exclusive: bool = False
) -> Path:
    """Write a picture with its parameters, whole or not at all, as PNG, JPEG or WebP by the ending.

    Args:
        exclusive: never replace a file; raises FileExistsError where there is one.

    Raises:
        InputError: another ending.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path} has the ending {path.suffix!r}; save pictures as .png, .jpg or .webp")
    text = str(parameters)
    with atomic_file(path, exclusive=exclusive) as part:
        if kind == "PNG":
            info = PngImagePlugin.PngInfo()
            info.add_text(KEY, text)
            image.save(part, kind, pnginfo=info)
        else:
            exif = Image.Exif()
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = UNICODE + text.encode("utf-16-be")
            image.convert("RGB").save(part, kind, quality=95, exif=exif)
    return path


def check_folder(folder: Path, what: str = "pictures") -> None:
    """Raises InputError where `what` cannot be written into this folder, there or not: before it is made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if exists(path))
    if not there.is_dir():
        raise InputError(f"{there} is a file; give a folder for the {what}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there} cannot be written to; give another folder for the {what}")


def save_numbered(image: Image.Image, folder: Path, name: str, parameters: Parameters | str) -> Path:
    """Save a picture as `<number>-<name>`, the number one more than any in the folder; no file is ever replaced.

    Several processes may save into one folder. What a killed one left half-written is removed.

    Args:
        name: with its ending: `1234.png`.
    """
    check_folder(folder)
    mend(folder, lambda target: NUMBERED.fullmatch(target) is not None)
    number = next_number(folder)
    while True:
        try:
            return save_picture(image, folder / f"{number:05d}-{name}", parameters, exclusive=True)
        except FileExistsError:
            number = max(number + 1, next_number(folder))


def next_number(folder: Path) -> int:
    """One more than the largest number that a file name in `folder` begins with; 0 where there is none."""
    matches = (NUMBERED.fullmatch(file.name) for file in folder.glob("*"))
    return max((int(match[1]) for match in matches if match), default=-1) + 1


def read_parameters(path: str | Path) -> Parameters:
    """How a picture was made, from the picture itself.

    Raises:
        InputError: not a readable picture, one that does not say, or says it in a way that is not known here.
    """
    header = read_header(Path(path))
    text = _text(header)
    if not text:
        for key, tool in UNREADABLE.items():
            if key in header.texts:
                raise InputError(f"{path} was made by {tool}, so its settings cannot be read; enter them by hand")
        raise InputError(f"{path} does not say how it was made; give a picture with generation parameters")
    try:
        return Parameters.parse(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _text(header: PictureHeader) -> str:
    """The text of the settings, wherever the tool put it."""
    if header.texts.get("Software") == "NovelAI" and "Comment" in header.texts:
        return header.texts["Comment"]
    first, *rest = TEXT_KEYS
    if text := header.texts.get(first) or _decode_comment(header.comment):
        return text
    if text := next(filter(None, (header.texts.get(key) for key in rest)), ""):
        return text
    for text in header.exif:
        name, _, prompt = text.partition(":")
        if name.lower() == "prompt":  # ComfyUI in WebP
            return prompt
    return ""


def _decode_comment(comment: bytes | str | None) -> str:
    """EXIF names the character code in eight bytes, but not its byte order, on which tools differ."""
    if not isinstance(comment, bytes):
        return comment or ""
    code, text = comment[:8], comment[8:]
    if code != UNICODE:
        plain = text if code in (b"ASCII\0\0\0", bytes(8)) else comment
        return plain.decode("utf-8", errors="replace").rstrip("\0")
    big = text[::2].count(0) >= text[1::2].count(0)
    return text.decode("utf-16-be" if big else "utf-16-le", errors="replace")
