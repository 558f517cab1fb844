"""Pictures on disk, newest first: what the gallery shows, also after a restart."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from spectral_fusion.picture import Parameters


class History:
    """The PNG files of one folder, named by the moment they were made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, image: Image.Image, parameters: Parameters, kind: str) -> Path:
        """Save a picture with its parameters; `kind` ends its name, such as the seed."""
        from spectral_fusion.picture import save_picture

        name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{kind}.png"
        return save_picture(image, self.folder / name, parameters)

    def newest(self, count: int, skip: int = 0) -> list[Path]:
        """The newest pictures, the latest first."""
        return sorted(self.folder.glob("[0-9]*.png"), reverse=True)[skip : skip + count]

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("[0-9]*.png"))

    def find(self, name: str) -> Path:
        """A picture by its file name. Raises InputError where there is none."""
        path = self.folder / Path(name).name
        if path.name != name or path.suffix != ".png" or not path.is_file():
            raise InputError(f"no picture {name[:100]!r} in the history; choose one of the gallery")
        return path
