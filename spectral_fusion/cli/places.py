"""Places and parts of the denoising, as `generate` takes them on the command line."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from spectral_fusion.cli.progress import heard
from spectral_fusion.errors import InputError, printable
from spectral_fusion.names import speaks_of

if TYPE_CHECKING:
    from spectral_fusion.base.regions import Region
    from spectral_fusion.concept import Concept

NONE = "none"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_regions(
    words: list[str], concepts: list[str] | None, chosen: dict["Concept", float], *, bind: bool
) -> tuple["Region", ...]:
    """The regions of `--region PROMPT PLACE` with the concepts of `--region-concepts`.

    Args:
        concepts: for each region, in order; None: those whose triggers the region's prompt names, at their weights.
        bind: whether regions have concepts at all.

    Raises:
        InputError: a word is missing or malformed, or there are other numbers of regions and lists of concepts.
    """
    if len(words) % 2:
        raise InputError(f"--region takes a prompt and a box; got {words[-1]!r} alone; write --region PROMPT 0,0,0.5,1")
    pairs = list(zip(words[::2], words[1::2], strict=True))
    if concepts and len(concepts) != len(pairs):
        raise InputError(
            f"{len(pairs)} regions and {len(concepts)} lists of --region-concepts; give one for each region"
        )
    if not bind:
        return tuple(_region(prompt, place) for prompt, place in pairs)
    lists = [read_weights(text, chosen) for text in concepts] if concepts else [_named(p, chosen) for p, _ in pairs]
    return tuple(_region(prompt, place, own) for (prompt, place), own in zip(pairs, lists, strict=True))


def read_weights(text: str, chosen: dict["Concept", float]) -> tuple[tuple[str, float], ...]:
    """Concepts of one region from `rex:0.8,tom`; a name alone has the weight that it has among the chosen."""
    if text.strip() == NONE:
        return ()
    weights = {concept.name: weight for concept, weight in chosen.items()}
    found = []
    for item in text.split(","):
        name, colon, number = item.strip().partition(":")
        try:
            found.append((name, float(number) if colon else weights.get(name, 1.0)))
        except ValueError as error:
            raise InputError(f"--region-concepts has {item!r}; write a name and a weight, such as rex:0.8") from error
    return tuple(found)


def read_spans(items: list[str]) -> dict[str, tuple[float, float]]:
    """Parts of the denoising by concept from `rex:0.2-1`. Raises InputError."""
    spans = {}
    for item in items:
        name, _, span = item.rpartition(":")
        first, dash, last = span.partition("-")
        try:
            spans[name] = (float(first or 0), float(last or 1))
        except ValueError:
            dash = ""
        if not name or not dash or not all(map(math.isfinite, spans[name])):
            raise InputError(
                f"--concept-steps has {item!r}; write a name and two parts of the steps, such as rex:0.2-1"
            )
    return spans


def _region(prompt: str, place: str, concepts: tuple[tuple[str, float], ...] = ()) -> "Region":
    from spectral_fusion.base.painted import read_mask
    from spectral_fusion.base.regions import Region

    if place.lower().endswith(PICTURES):
        return Region(prompt, painted=read_mask(Path(place)), concepts=concepts)
    return Region.parse(prompt, place, concepts)


def _named(prompt: str, chosen: dict["Concept", float]) -> tuple[tuple[str, float], ...]:
    return tuple((concept.name, weight) for concept, weight in chosen.items() if speaks_of(prompt, concept.trigger))


@contextmanager
def warnings_told() -> Iterator[None]:
    """Within the `with` block, what a job warns of is said on the standard error stream, each line once."""
    said: set[str] = set()

    def tell(record: logging.LogRecord) -> None:
        line = printable(f"note: {record.getMessage()}")
        if line not in said:
            said.add(line)
            typer.echo(line, err=True)

    with heard("spectral_fusion.generation", logging.WARNING, tell):
        yield
