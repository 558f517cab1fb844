"""What lies beside a picture and belongs to it: its caption, its mask, and the side files of other tools."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from spectral_fusion.concept.images.captions import ENDINGS as CAPTIONS
from spectral_fusion.concept.images.layout import PICTURES_FOLDERS
from spectral_fusion.concept.images.picture import ENDINGS
from spectral_fusion.names import normal

MASK_SUFFIX = "-masklabel"
# OneTrainer numbers them; those after the second bar count where the picture of the same name is there.
LABELLED = re.compile(r"(?P<stem>.+)-(masklabel|condlabel)\d*")
PAIRED = re.compile(r"(?P<stem>.+)[-_.](mask|depth|canny|openpose|pose|lineart|normal|seg|control|cond|alpha)\d*")
CACHES = re.compile(r".+\.(npz|npy|cache|safetensors)")


@dataclass
class Shelf:
    """The files of one folder by name, whichever Unicode form or case a name is in; `used` collects what was taken."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    used: set[Path] = field(default_factory=set)

    @classmethod
    def of(cls, folder: Path) -> "Shelf":
        files: dict[str, Path] = {}
        if folder.is_dir():
            for file in sorted(folder.iterdir()):
                if file.is_file() and not file.name.startswith("."):
                    files.setdefault(_key(file.name), file)
                    files[normal(file.name)] = file
        return cls(folder, files)

    def take(self, *names: str) -> Path | None:
        """The first file of these names, an exact match before one of another case; it counts as used."""
        for name in names:
            if found := self.files.get(normal(name)) or self.files.get(_key(name)):
                self.used.add(found)
                return found
        return None

    def unused(self) -> list[Path]:
        """The files that nobody took, in order."""
        return sorted(set(self.files.values()) - self.used)


def shelves(folder: Path, name: str) -> list[Shelf]:
    """Where captions or masks of a folder's pictures may lie: in it, and in `name` beside Mix-of-Show's `image/`."""
    return [Shelf.of(path) for path in (folder, *([folder.parent / name] if folder.name in PICTURES_FOLDERS else []))]


def find_captions(stem: str, places: list[Shelf]) -> list[Path]:
    """The caption files of the picture called `stem`, the one that counts first."""
    return [file for place in places for ending in CAPTIONS if (file := place.take(stem + ending))]


def find_mask(stem: str, places: list[Shelf]) -> Path | None:
    """The mask file of the picture called `stem`."""
    beside, *sibling = places
    if mask := beside.take(f"{stem}{MASK_SUFFIX}.png"):
        return mask
    return next((mask for place in sibling if (mask := place.take(*(stem + ending for ending in ENDINGS)))), None)


def side_file(stem: str, stems: set[str]) -> bool:
    """Whether a picture called `stem` is no photo but a mask or a condition that another tool keeps beside one."""
    return split_side(stem, stems)[1] != ""


def split_side(stem: str, stems: set[str]) -> tuple[str, str]:
    """The picture that a side file called `stem` belongs to, and the rest of its name; an empty rest for a photo."""
    labelled, paired = LABELLED.fullmatch(stem), PAIRED.fullmatch(stem)
    found = labelled or (paired if paired is not None and paired["stem"] in stems else None)
    return (found["stem"], stem[found.end("stem") :]) if found else (stem, "")


def _key(name: str) -> str:
    return normal(name).casefold()
