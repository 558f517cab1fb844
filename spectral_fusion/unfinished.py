"""A list, in the user's cache folder, of what is being written: a start after a kill knows where to look.

The library and the page's folders are looked through at each start; pictures, exports and fused models may lie
anywhere. Each write has a file of its own here while it lasts, which holds the path of its target.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = "writing"
FORGOTTEN = 30 * 86_400.0  # seconds after which a target counts as gone whose folder is not there, as of a disk


def cache_folder() -> Path:
    """`$SPECTRAL_FUSION_CACHE`, else `spectral-fusion` in the user's cache folder.

    Raises:
        RuntimeError: this user has no home.
    """
    if own := os.environ.get("SPECTRAL_FUSION_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spectral-fusion"


@contextmanager
def noted(target: Path) -> Iterator[None]:
    """Have `target` on the list while the context lasts; without a place for the list, it is not."""
    note: Path | None = None
    with suppress(OSError, RuntimeError):
        folder = cache_folder() / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / secrets.token_hex(8)
        note.write_bytes(os.fsencode(target.absolute()))
    try:
        yield
    finally:
        if note is not None:
            with suppress(OSError):
                note.unlink(missing_ok=True)


def targets() -> Iterator[tuple[Path, Path]]:
    """Each entry of the list and the target that it holds; an entry that holds none, or is of long ago, goes."""
    with suppress(OSError, RuntimeError):
        for note in sorted((cache_folder() / FOLDER).iterdir()):
            with suppress(OSError, ValueError):
                target = Path(os.fsdecode(note.read_bytes()))
                if target.is_absolute() and target.parent.is_dir():
                    yield note, target
                elif time.time() - note.stat().st_mtime > FORGOTTEN:
                    note.unlink(missing_ok=True)
