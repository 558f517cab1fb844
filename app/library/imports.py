"""Into the library and out of it, whatever a file is: a concept, or a LoRA of another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spectral_fusion.errors import InputError
from spectral_fusion_app.library.loras import LoraInfo
from spectral_fusion_app.library.shelf import Shelf
from spectral_fusion_app.studio import Studio

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo


def add(
    studio: Studio, file: str | Path | None, name: str = "", trigger: str = "", replace: bool = False
) -> ConceptInfo | LoraInfo:
    """Copy a file into the library; empty texts keep what it says of itself.

    Raises:
        InputError: nothing was given, it is neither a concept nor a LoRA for the loaded base, or its name or trigger is
            taken.
    """
    from spectral_fusion.concept.community import is_lora
    from spectral_fusion.names import check_name

    if not file or not is_lora(file):
        shelf = Shelf(studio.settings.library)
        studio.loras.refuse_name(name.strip() or shelf.name_of(file))
        return shelf.add(file, name=name, trigger=trigger, replace=replace)
    target = name.strip() or Path(file).stem
    try:
        taken = studio.library.path(check_name(target)).exists()
    except InputError:
        if name.strip():
            raise
        taken = False  # the file's own name is made usable
    if taken:
        raise InputError(f"the library has a concept {target!r} already; give another name")
    return studio.add_lora(Path(file), name, trigger)


def remove(studio: Studio, name: str) -> None:
    """Into the bin. Raises InputError where there is none."""
    if name in studio.loras:
        studio.loras.remove(name)
    else:
        studio.library.remove(name)


def restore(studio: Studio, name: str) -> str:
    """Out of the bin. Raises InputError where there is none, or something else was given its name since."""
    if name in studio.loras.removed() and name not in studio.library.removed():
        if studio.library.path(name).exists():
            raise InputError(f"the library has a concept {name!r} again; delete that one first, or rename it")
        return studio.loras.restore(name)
    studio.loras.refuse_name(name)
    return studio.library.restore(name).name


def rename(studio: Studio, name: str, to: str) -> ConceptInfo:
    """Give a concept another name. Raises InputError where it cannot have that one."""
    from spectral_fusion.names import check_name

    to = check_name(to)
    studio.loras.refuse_name(to)
    return studio.library.rename(name, to)
