"""Concepts as the command line names them, for the verbs that fuse."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_fusion.errors import InputError, printable
from spectral_fusion.names import key

if TYPE_CHECKING:
    from spectral_fusion.base.interface import Base
    from spectral_fusion.concept import Concept
    from spectral_fusion.concept.community import LoraFile

Loras = Annotated[list[str] | None, typer.Option(help="LoRA files of other programs, for the same base.")]
LoraWeights = Annotated[list[float] | None, typer.Option(help="One per LoRA file, in order. Default: 1 each.")]
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
    keys = [key(name) for name in names]
    if twice := [name for name in names if keys.count(key(name)) > 1]:
        raise InputError(f"concept {twice[0]!r} is named twice; name it once, with the weight you want")
    concepts = [Concept.load(concept_path(name, library)) for name in names]
    return dict(zip(concepts, weights, strict=True))


def select_loras(paths: list[str] | None, weights: list[float] | None, base: "Base") -> dict["LoraFile", float]:
    """LoRA files for a base and their weights, 1 where none are given; what of a file fits no layer is said.

    Raises:
        InputError: more or fewer weights than files, or one that cannot be read.
    """
    from spectral_fusion.adapter.kinds import weight_shape
    from spectral_fusion.concept.community import read_lora

    paths = paths or []
    weights = weights or [1.0] * len(paths)
    if len(weights) != len(paths):
        raise InputError(f"{len(paths)} LoRAs and {len(weights)} LoRA weights; give one weight per file, in order")
    if odd := [weight for weight in weights if not math.isfinite(weight)]:
        raise InputError(f"the LoRA weight {odd[0]} is no number; give one such as 0.8")
    files = [os.path.realpath(path) for path in paths]
    if twice := [path for path, file in zip(paths, files, strict=True) if files.count(file) > 1]:
        raise InputError(f"LoRA {twice[0]} is named twice; name it once, with the weight you want")
    shapes = {name: weight_shape(layer) for name, layer in base.layers().items()}
    loras = [read_lora(path, shapes) for path in paths]
    for lora in loras:
        if lora.unmatched:
            keys = ", ".join(lora.unmatched[:8]) + (", ..." if len(lora.unmatched) > 8 else "")
            typer.echo(
                f"note: {len(lora.unmatched)} keys of {lora.name} fit no layer of this base: {printable(keys)}",
                err=True,
            )
    return dict(zip(loras, weights, strict=True))


def with_tagged(
    chosen: dict["Concept", float], tagged: dict[str, float], library: Path | None = None
) -> dict["Concept", float]:
    """The chosen concepts and those of `<lora:name:0.8>` tags in a prompt; a tag's weight wins over the flag's.

    Raises:
        InputError: a tag names a concept that cannot be loaded.
    """
    by_name = {key(concept.name): concept for concept in chosen}
    new = [name for name in tagged if key(name) not in by_name]
    return (
        chosen
        | {by_name[key(name)]: weight for name, weight in tagged.items() if key(name) in by_name}
        | select_concepts(new, [tagged[name] for name in new], library)
    )


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
