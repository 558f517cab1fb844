"""Concepts as the command line names them, for the verbs that fuse."""

import os
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
    from spectral_fusion.concept import Concept

    names = names or []
    weights = weights or [1.0] * len(names)
    if len(weights) != len(names):
        raise InputError(f"{len(names)} concepts and {len(weights)} weights; give one weight per concept, in order")
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"concept {twice.pop()!r} is named twice; name it once, with the weight you want")
    concepts = [Concept.load(concept_path(name, library)) for name in names]
    return dict(zip(concepts, weights, strict=True))


def concept_path(name: str, library: Path | None = None) -> Path:
    """The file that a name stands for: a path ends in .safetensors or holds a separator, all else is of the library.

    Raises:
        InputError: it is not there.
    """
    from spectral_fusion.concept import Library
    from spectral_fusion.concept.read import find_file

    if name.endswith(".safetensors") or "/" in name or os.sep in name:
        return find_file(name)
    return Library(library).find(name)
