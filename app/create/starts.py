"""Pictures to begin from or to be controlled by: each kept under the digest of its pixels, by which others name it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from spectral_fusion.errors import InputError
from spectral_fusion_app import engine

if TYPE_CHECKING:
    from PIL import Image

NAME = re.compile(r"[0-9a-f]{10}")
MOST = 200  # pictures kept; those that were used last stay


class Starts:
    """The PNG files of one folder."""

    def __init__(self, folder: Path, edge: int) -> None:
        """edge: in pixels; larger pictures are kept smaller, as none is made that is larger."""
        self.folder, self.edge = folder, edge

    def keep(self, file: Path) -> str:
        """Keep a copy of a picture; returns its name. Raises InputError where it cannot be read."""
        from spectral_fusion.atomic import atomic_file
        from spectral_fusion.reading import load_picture
        from spectral_fusion.reading.modes import as_rgb

        try:
            image = as_rgb(load_picture(file, smallest=8))
        except InputError as error:
            raise InputError(str(error).replace(str(file), file.name)) from error
        image.thumbnail((self.edge, self.edge))
        name = engine.image_digest(image)
        path = self._path(name)
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as part:
                image.save(part, "PNG")
        self._prune()
        return name

    def find(self, name: str, what: str = "the start picture") -> Path:
        """The file of one. Raises InputError, which begins with `what`, where it is not there any more."""
        if not NAME.fullmatch(name) or not self._path(name).is_file():
            raise InputError(f"{what} is no longer on this server; choose it again, or remove it")
        return self._path(name)

    def image(self, name: str, what: str = "the start picture") -> Image.Image:
        """One as pixels. Raises InputError where it is not there any more."""
        from spectral_fusion.reading import load_picture

        path = self.find(name, what)
        os.utime(path)
        return load_picture(path, smallest=1)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def _prune(self) -> None:
        found = sorted(self.folder.glob("*.png"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in found[MOST:]:
            path.unlink(missing_ok=True)
