"""Files that the page makes for its visitors to download: each set in a folder that nobody can guess, for a day."""

from __future__ import annotations

import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.web import picture_url

KEPT_SECONDS = 86_400


class Exports:
    """The folder of them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self) -> Path:
        """A new folder to write files into. Those of yesterday go."""
        self.root.mkdir(parents=True, exist_ok=True)
        for old in self.root.iterdir():
            if old.is_dir() and old.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        folder = self.root / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder


def links(files: list[Path], settings: AppSettings) -> list[dict[str, Any]]:
    """Where a browser finds them."""
    return [{"name": file.name, "url": picture_url(file, settings), "size": file.stat().st_size} for file in files]
