"""The library as the page shows and changes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo

ExportFormat = Literal["concept", "diffusers", "kohya"]
PREVIEW = "preview.png"


@dataclass(frozen=True)
class ShelfCard:
    """One concept. `size` in bytes; `preview` may not be there."""

    info: ConceptInfo
    size: int
    preview: Path


@dataclass(frozen=True)
class Bands:
    """Which singular directions of one base are taken, and how many more concepts fit.

    Attributes:
        base: as the user calls it.
        directions: of the smallest layer.
        members: in the order of their bands.
        free: bands of `rank` that nobody has.
    """

    base: str
    directions: int
    members: tuple[ConceptInfo, ...]
    rank: int
    free: int

    @classmethod
    def of(cls, members: list[ConceptInfo]) -> Bands:
        """members: one or more concepts of one base."""
        from spectral_fusion.concept.claim import room_left

        ordered = sorted(members, key=lambda info: (info.span.start, info.name))
        rank, directions = ordered[0].band.rank, min(info.directions for info in ordered)
        free = room_left([info.band for info in ordered], rank, directions)
        return cls(ordered[0].base_name or ordered[0].base, directions, tuple(ordered), rank, free)


class Shelf:
    """The concepts of one library folder. Every name that comes from a visitor is checked by `Library`."""

    def __init__(self, root: Path) -> None:
        from spectral_fusion.concept import Library

        self.library = Library(root)

    def cards(self) -> list[ShelfCard]:
        """All concepts, by name."""
        return self.cards_of(self.library.list())

    def unreadable(self) -> dict[str, str]:
        """What lies in the library and cannot be used: name -> why, without the server's folders."""
        stock, folder = self.library.stock(), f"{self.library.root}/"
        return {bad.name: bad.reason.replace(folder, "") for bad in (*stock.unreadable, *stock.broken_claims)}

    def cards_of(self, infos: Iterable[ConceptInfo]) -> list[ShelfCard]:
        """The cards of these; one that somebody removes meanwhile is left out."""
        cards = []
        for info in infos:
            path = self.library.path(info.name)
            try:
                cards.append(ShelfCard(info, path.stat().st_size, path.with_name(PREVIEW)))
            except OSError:
                continue
        return cards

    def card(self, name: str) -> ShelfCard:
        """One concept. Raises InputError where there is none."""
        path = self.library.find(name)
        return ShelfCard(self.library.info(name), path.stat().st_size, path.with_name(PREVIEW))

    def bands(self) -> list[Bands]:
        """The bands in use, base by base."""
        found = sorted(self.library.list(), key=lambda info: (info.base_name, info.base))
        return [Bands.of(list(members)) for _, members in groupby(found, key=lambda info: info.base)]

    def name_of(self, file: str | Path | None) -> str:
        """What a concept file calls itself. Raises InputError, which names the file alone and not its folder."""
        if not file:
            raise InputError("no file yet; drop a concept, which ends in .safetensors")
        from spectral_fusion.concept import read_info

        try:
            return read_info(file).name
        except InputError as error:
            raise InputError(str(error).replace(str(file), Path(file).name)) from error

    def add(self, file: str | Path | None, *, name: str = "", trigger: str = "", replace: bool = False) -> ConceptInfo:
        """Copy a concept file into the library; empty texts keep what it says of itself.

        Raises:
            InputError: nothing was given, it is no concept, or its name or trigger is taken.
        """
        known = self.name_of(file)  # also where another name is given: what is no concept is refused first
        target, path = name.strip() or known, Path(str(file))
        try:
            if self.library.path(target).exists() and not replace:
                raise InputError(f"the library has a concept {target!r} already; give another name, or replace it")
            return self.library.add(path, name=target, trigger=trigger.strip() or None, force=replace)
        except InputError as error:
            raise InputError(str(error).replace(str(path), path.name)) from error

    def export(self, name: str, to: ExportFormat, folder: Path) -> list[Path]:
        """Write a concept for other programs into a folder: itself, or a LoRA and the embedding of its trigger.

        Raises:
            InputError: no such concept, or an unknown format.
        """
        from spectral_fusion.concept import export_embedding, export_lora

        if to not in get_args(ExportFormat):
            raise InputError(f"format {to!r} is unknown; use one of {', '.join(get_args(ExportFormat))}")
        if to == "concept":
            return [Path(shutil.copyfile(self.library.find(name), folder / f"{name}.safetensors"))]
        concept = self.library.get(name)
        lora = export_lora({concept: 1.0}, folder / f"{name}-{to}.safetensors", to)
        return [lora, export_embedding(concept, folder / f"{name}.safetensors")]
