"""Which bands are taken: by concepts, and by trainings that will become one."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from spectral_fusion.atomic import atomic_file
from spectral_fusion.errors import InputError, MissingError, shown
from spectral_fusion.names import check_trigger
from spectral_fusion.reading import read_json
from spectral_fusion.spectral import Band, Side


@dataclass(frozen=True)
class Claim:
    """A trigger and a band that a training has taken on a base and not yet filled."""

    trigger: str
    base: str
    band: Band

    def save(self, path: Path) -> None:
        """Write the claim, as JSON."""
        band = {"band": self.band.index, "rank": self.band.rank, "side": self.band.side}
        record = {"trigger": self.trigger, "base": self.base} | band
        with atomic_file(path) as part:
            part.write_text(json.dumps(record), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Claim":
        """Read a claim back; raises InputError where the file is damaged, MissingError where there is none."""
        try:
            record = read_json(path)
            band = Band(record["band"], record["rank"], record.get("side", "top"))
            base = record["base"]
            if not isinstance(base, str) or not base.isprintable():
                raise ValueError(f"the base {shown(base)} is no text")
            return cls(check_trigger(record["trigger"]), base, band)
        except (ValueError, KeyError, TypeError) as error:
            kind = MissingError if isinstance(error, MissingError) else InputError
            raise kind(f"{path} cannot be read ({error}); delete it, it only reserves a band") from error


def free_bands(taken: Iterable[Band], rank: int, directions: int, side: Side = "top") -> list[Band]:
    """All bands of this rank and side, the outermost first, that touch none of `taken` in any layer.

    Args:
        directions: of the smallest layer. Bands end there, and those of opposite sides that are apart in it are apart
            in every larger layer.
    """
    used = bytearray(directions)
    for band in taken:
        span = band.within(directions)
        start, stop = max(0, span.start), max(0, min(span.stop, directions))
        used[start:stop] = b"\1" * (stop - start)
    bands = [Band(index, rank, side) for index in range(directions // rank)]
    return [band for band in bands if not any(used[band.within(directions).start : band.within(directions).stop])]


def free_band(taken: Iterable[Band], rank: int, directions: int | None, side: Side = "top") -> Band:
    """The first of `free_bands`.

    Args:
        directions: None: not known, so that bands have no end and those of opposite sides are taken to be apart.

    Raises:
        InputError: there is none; says how many fit and what to do.
    """
    Band(0, rank)  # refuses a rank that is no number
    taken = list(taken)
    if directions is None:
        end = max((band.depth for band in taken), default=0) // rank + 2
        return next(
            band for band in (Band(i, rank, side) for i in range(end)) if not any(band.overlaps(t) for t in taken)
        )
    free = free_bands(taken, rank, directions, side)
    if not free:
        raise InputError(
            f"no free band of rank {rank}: this base has room for {directions // rank}, {len(taken)} concepts use it. "
            "Train at a lower --rank, remove a concept, or start another --library for subjects never fused with these"
        )
    return free[0]


def room_left(taken: Iterable[Band], rank: int, directions: int) -> int:
    """How many more bands of this rank fit, on the side that has more of them."""
    taken = list(taken)
    return max(len(free_bands(taken, rank, directions, side)) for side in get_args(Side))


@dataclass(frozen=True)
class Room:
    """How many more bands of a rank fit on a base, counted from either end: the same directions, cut in two ways."""

    rank: int
    top: int
    bottom: int


def capacity(taken: Iterable[Band], ranks: Sequence[int], directions: int) -> list[Room]:
    """The room that is left for bands of each rank."""
    taken = list(taken)
    left = {side: [len(free_bands(taken, rank, directions, side)) for rank in ranks] for side in get_args(Side)}
    return [Room(*counts) for counts in zip(ranks, left["top"], left["bottom"], strict=True)]
