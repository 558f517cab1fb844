"""Concepts as the command line names them, for the verbs that fuse."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.concept import Concept

LibraryFolder = Annotated[
    Path | None, typer.Option(help="Folder of concepts. Default: $SPECTRAL_FUSION_LIBRARY, else ./concepts.")
]


def select_concepts(
    names: list[str] | None, weights: list[float] | None = None, library: Path | None = None
) -> dict["Concept", float]:
    """Concepts and their weights, 1 where none are given; a name is one of the library, or a concept file.

    Raises:
        InputError: more or fewer weights than concepts, a name twice, or one that cannot be loaded.
    """
    from spectral_fusion.concept import Concept, Library

    names = names or []
    weights = weights or [1.0] * len(names)
    if len(weights) != len(names):
        raise InputError(f"{len(names)} concepts and {len(weights)} weights; give one weight per concept, in order")
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"concept {twice.pop()!r} is named twice; name it once, with the weight you want")
    shelf = Library(library)
    files = [name.endswith(".safetensors") or "/" in name for name in names]
    concepts = [Concept.load(name) if file else shelf.get(name) for name, file in zip(names, files, strict=True)]
    return dict(zip(concepts, weights, strict=True))
