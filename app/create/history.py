"""Pictures on disk, newest first: what the page shows, also after a restart; a bin, and stars."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from spectral_fusion.errors import InputError
from spectral_fusion_app.records import read_record, write_record

if TYPE_CHECKING:
    from PIL import Image

    from spectral_fusion.picture import Parameters

BIN = ".trash"
STAMP = "%Y%m%d-%H%M%S-%f"
STAMP_LENGTH = len("20260101-000000-000000")
MOMENT = timedelta(microseconds=1)
STARS = ".stars.json"


class History:
    """The PNG files of one folder, named by when they were made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, image: Image.Image, parameters: Parameters, kind: str) -> Path:
        """Save a picture with its parameters; `kind` ends its name, such as the seed."""
        from spectral_fusion.picture import save_picture

        while True:
            name = f"{self._now():{STAMP}}-{kind}.png"
            try:
                return save_picture(image, self.folder / name, parameters, exclusive=True)
            except FileExistsError:  # of another server on this folder
                continue

    def _now(self) -> datetime:
        """The time; later than that of all that is there, also where the clock was set back."""
        newest = self.newest(1)
        with suppress(ValueError, IndexError):
            return max(datetime.now(), datetime.strptime(newest[0].name[:STAMP_LENGTH], STAMP) + MOMENT)
        return datetime.now()

    def newest(self, count: int, skip: int = 0) -> list[Path]:
        """The newest pictures, the latest first."""
        return sorted(self.folder.glob("[0-9]*.png"), reverse=True)[skip : skip + count]

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("[0-9]*.png"))

    def find(self, name: str) -> Path:
        """A picture by its file name. Raises InputError where there is none."""
        path = self.folder / Path(name).name
        if path.name != name or path.suffix != ".png" or not path.is_file():
            raise InputError(f"no picture {name[:100]!r} in the history; choose one of those shown")
        return path

    def remove(self, name: str) -> None:
        """Move a picture into the bin; `unremove` is the inverse. Raises InputError where there is none."""
        path = self.find(name)
        (self.folder / BIN).mkdir(exist_ok=True)
        path.rename(self.folder / BIN / name)

    def unremove(self, name: str) -> Path:
        """Bring a picture back from the bin. Raises InputError where it is not there."""
        path = self.folder / BIN / Path(name).name
        if path.name != name or not path.is_file():
            raise InputError(f"no picture {name[:100]!r} in the bin; it may be back already")
        return path.rename(self.folder / name)

    def starred(self) -> set[str]:
        """Names of the marked pictures."""
        names = (read_record(self.folder / STARS) or {}).get("names", [])
        return {str(name) for name in names} if isinstance(names, list) else set()

    def star(self, name: str, on: bool) -> None:
        """Mark a picture, or no longer. Raises InputError where there is none."""
        path = self.find(name)
        names = self.starred() | {path.name} if on else self.starred() - {path.name}
        write_record(self.folder / STARS, {"names": sorted(names)})

    def size(self, path: Path) -> tuple[int, int]:
        """Width and height of a picture in pixels; zeros where it cannot be read."""
        try:
            return _size(path, path.stat().st_mtime_ns)
        except OSError:
            return 0, 0


@lru_cache(maxsize=4096)
def _size(path: Path, changed: int) -> tuple[int, int]:
    from spectral_fusion.reading import read_header

    try:
        header = read_header(path)
    except InputError:
        return 0, 0
    return header.width, header.height
