"""Captions of a folder of pictures: a text file beside each picture, or one `metadata.jsonl`."""

import json
from pathlib import Path

from spectral_fusion.errors import InputError

ENDINGS = (".txt", ".caption")
METADATA = "metadata.jsonl"


def read_text(path: Path) -> str:
    """The text of `path`, UTF-8 with or without a byte order mark.

    Raises:
        InputError: not UTF-8, or not readable.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from None


def caption_beside(stem: Path) -> Path | None:
    """The caption file of the picture `stem` + ending, if there is one."""
    return next((file for ending in ENDINGS if (file := stem.with_name(stem.name + ending)).is_file()), None)


def read_caption(path: Path) -> str | None:
    """The caption in `path` on one line; None where the file holds no text."""
    return " ".join(read_text(path).split()) or None


def read_metadata(folder: Path) -> dict[str, str]:
    """`{file_name: text}` from `metadata.jsonl` (the Hugging Face `imagefolder` layout); empty without that file.

    Raises:
        InputError: a line is not a JSON object with the strings `file_name` and `text`.
    """
    path = folder / METADATA
    if not path.is_file():
        return {}
    captions = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path} line {number} is not JSON ({error.msg}); write one object a line") from None
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("file_name", "text")):
            raise InputError(f'{path} line {number} needs two strings: {{"file_name": "a.jpg", "text": "a photo"}}')
        captions[entry["file_name"]] = " ".join(entry["text"].split())
    return captions
