"""How concepts, bands and overlaps look on a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo
    from spectral_fusion.concept.claim import Room
    from spectral_fusion.concept.joint import Overlap

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
MAP_WIDTH = 48
UNBROKEN = 10_000  # columns


def wide_console() -> Console:
    """A console that breaks no line: a terminal folds long ones by itself, and a path is copied from it whole."""
    return Console(width=UNBROKEN)


def plain_table(*columns: str, title: str | None = None) -> Table:
    """A table without a frame: a header line and left-aligned columns."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


COLUMNS = ("concept", "trigger", "class", "band", "rank", "directions", "mode")


def concept_table(concepts: Sequence["ConceptInfo"], weights: Sequence[float] | None = None) -> Table:
    """One row a concept; with weights, a column for them."""
    table = plain_table(*COLUMNS, *(["weight"] if weights else []))
    for i, info in enumerate(concepts):
        row = [escape(cell) for cell in _cells(info)]
        table.add_row(*row, *([f"{weights[i]:g}"] if weights else []), style=colour(i))
    return table


def concept_lines(concepts: Sequence["ConceptInfo"], tags: Mapping[str, Sequence[str]]) -> str:
    """The same for thousands of concepts, with their tags: rich takes seconds to lay out so long a table."""
    rows = [COLUMNS, *(_cells(info) for info in concepts)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    tagged = [f"{line}  {', '.join(tags.get(info.name, ()))}" for line, info in zip(lines[1:], concepts, strict=True)]
    heading = lines[0] + ("  tags" if any(info.name in tags for info in concepts) else "")
    styled = [typer.style(line.rstrip(), fg=colour(i)) for i, line in enumerate(tagged)]
    return "\n".join([typer.style(heading.rstrip(), dim=True), *styled])


def _cells(info: "ConceptInfo") -> tuple[str, ...]:
    span = f"{info.span.start}-{info.span.stop - 1}"
    return info.name, info.trigger, info.class_word, info.band.label, str(info.band.rank), span, info.mode


def band_map(concepts: Sequence["ConceptInfo"]) -> Text:
    """Which singular directions of one base are taken, from the largest singular value to the last."""
    directions = min(info.directions for info in concepts)
    width = min(MAP_WIDTH, directions)
    owners: list[int | None] = [None] * width
    for i, info in enumerate(concepts):
        span = info.band.within(directions)
        first = span.start * width // directions
        for cell in range(first, max(first + 1, span.stop * width // directions)):
            owners[max(0, min(cell, width - 1))] = i
    bar = Text("0 ", style="dim")
    for owner in owners:
        bar.append("░" if owner is None else "█", style="dim" if owner is None else colour(owner))
    bar.append(f" {directions} singular directions", style="dim")
    return bar


def overlap_table(overlaps: Sequence["Overlap"], tolerance: float) -> Table:
    """One row a pair: how much their bands share where it is most."""
    table = plain_table("concepts", "overlap", "", "most in")
    for overlap in overlaps:
        shared = overlap.value > tolerance
        verdict = Text("overlap", style="bold red") if shared else Text("disjoint", style="green")
        table.add_row(f"{overlap.first} + {overlap.second}", f"{overlap.value:.4f}", verdict, overlap.layer)
    return table


def colour(number: int) -> str:
    """A colour for the concept of this number."""
    return COLOURS[number % len(COLOURS)]


def room(free: int, rank: int) -> str:
    """How many more concepts fit, in words."""
    if free == 0:
        return f"No room for another concept of rank {rank} on this base: train at a lower rank."
    return f"Room for {free} more concept{'s' if free != 1 else ''} of rank {rank} on this base."


def capacity_line(rooms: Sequence["Room"]) -> str:
    """How many bands of each rank are free, counted from either end."""
    counts = ", ".join(f"rank {room.rank}: {room.top} from the top or {room.bottom} from the bottom" for room in rooms)
    return f"Free bands: {counts}."


def size(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
