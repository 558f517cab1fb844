"""Which files a browser may name, whatever the path looks like: those inside the allowed roots; how they are told."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from spectral_fusion.errors import InputError

_hidden: set[str] = set()  # parts of paths that lead to the server's folders, each with its `/`


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


def hide(roots: Iterable[Path]) -> None:
    """From now on visitors are told of these folders by their names alone, and of what lies elsewhere even less."""
    for root in roots:
        _hidden.update(f"{path.parent}/" for path in (root.absolute(), root.resolve()))
    _hidden.update(f"{path}/" for path in (Path.cwd(), Path.home(), Path(tempfile.gettempdir())))
    _hidden.discard("//")


def told(text: str) -> str:
    """A message as visitors may read it: `concepts/rex/concept.safetensors`, and not where on the server that lies."""
    for part in sorted(_hidden, key=len, reverse=True):
        text = text.replace(part, "")
    return text
