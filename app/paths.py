"""Which files a browser may name: those inside the allowed roots, whatever the path looks like."""

from collections.abc import Iterable
from pathlib import Path

from spectral_fusion.errors import InputError


def inside(roots: Iterable[Path], path: str | Path) -> Path:
    """The file or folder that a visitor named, with all symbolic links followed.

    A relative path is looked up from the server's folder, then from each root; what exists goes first, so that a path
    that is to be written names a new file in the first root otherwise.

    Raises:
        InputError: it is empty, holds `..`, or leads out of every root. The message is the same whether the file
            exists or not, and names the roots as they were given, so that it does not tell where they lie.
    """
    text = str(path).strip()
    roots = list(roots)
    folders = [root.resolve() for root in roots]
    named = ", ".join(root.name if root.is_absolute() else str(root) for root in roots) or "none"
    refused = InputError(f"{text[:200]!r} is not in a folder that this page may use; allowed are {named}")
    if not text or "\0" in text or ".." in Path(text).parts:
        raise refused
    try:
        candidates = [(start / text).resolve() for start in (Path.cwd(), *folders)]
        allowed = [file for file in candidates if any(file.is_relative_to(folder) for folder in folders)]
        existing = [file for file in allowed if file.exists()]
    except (OSError, RuntimeError) as error:  # links in a circle, a name that is too long
        raise refused from error
    if not allowed:
        raise refused
    return (existing or allowed)[0]
