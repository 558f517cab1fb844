"""Which folders hold the pictures of a subject: kohya's numbered ones, `images/`, or the folder itself."""

import re
from dataclasses import dataclass
from pathlib import Path

from spectral_fusion.concept.images.picture import is_picture
from spectral_fusion.errors import InputError

PICTURES_FOLDERS = ("images", "image")
KOHYA_FOLDER = re.compile(r"(?P<repeats>[1-9]\d{0,3})_(?P<words>\S.*)")


@dataclass(frozen=True)
class Layout:
    """The folders to read, and what of the given folder is left out: each with the reason."""

    folders: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...] = ()


def find_layout(path: Path) -> Layout:
    """Where the pictures of `path` lie.

    Raises:
        InputError: `path` holds pictures, and fewer in numbered folders, so that both may be meant.
    """
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    own = [entry for entry in entries if is_picture(entry)]
    numbered = [entry for entry in entries if KOHYA_FOLDER.fullmatch(entry.name) and _pictures(entry)]
    if numbered:
        inside = sum(_pictures(folder) for folder in numbered)
        if len(own) > inside:
            raise InputError(
                f"{path} holds {len(own)} pictures, and {inside} in {numbered[0].name}, which kohya's trainer would "
                f"read instead; give {numbered[0]}, or rename it"
            )
        reason = f"the pictures are read from {', '.join(folder.name for folder in numbered)}"
        return Layout(tuple(numbered), tuple((entry, reason) for entry in entries if entry not in numbered))
    if own:
        return Layout((path,))
    inner = [path / name for name in PICTURES_FOLDERS if (path / name).is_dir()]
    if not inner:
        return Layout((path,))
    others = [entry for entry in entries if entry != inner[0] and entry.name not in ("caption", "mask")]
    return Layout((inner[0],), tuple((entry, f"the pictures are read from {inner[0].name}") for entry in others))


def kohya_prefix(name: str) -> tuple[int, str | None]:
    """(repeats, words) of a folder name: `10_rex dog` gives (10, "rex dog"), other names (1, None)."""
    match = KOHYA_FOLDER.fullmatch(name)
    return (int(match["repeats"]), " ".join(match["words"].split())) if match else (1, None)


def class_of(words: str | None) -> str | None:
    """The class word in the words of a folder's name: `dog` of `rex dog` and of `dog`."""
    return words.split(maxsplit=1)[-1] if words else None


def _pictures(folder: Path) -> int:
    return sum(is_picture(file) for file in folder.iterdir()) if folder.is_dir() else 0
