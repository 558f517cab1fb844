"""Which bands are taken: by concepts, and by trainings that will become one."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spectral_fusion.atomic import atomic_file
from spectral_fusion.errors import InputError
from spectral_fusion.reading import read_json
from spectral_fusion.spectral import Band


@dataclass(frozen=True)
class Claim:
    """A trigger and a band that a training has taken on a base and not yet filled."""

    trigger: str
    base: str
    band: Band

    def save(self, path: Path) -> None:
        """Write the claim, as JSON."""
        record = {"trigger": self.trigger, "base": self.base, "band": self.band.index, "rank": self.band.rank}
        with atomic_file(path) as part:
            part.write_text(json.dumps(record), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Claim":
        """Read a claim back; raises InputError where the file is damaged."""
        try:
            record = read_json(path)
            return cls(str(record["trigger"]), str(record["base"]), Band(record["band"], record["rank"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({error}); delete it, it only reserves a band") from error


def free_bands(taken: Iterable[Band], rank: int, directions: int) -> list[Band]:
    """All bands of this rank, lowest first, that touch none of `taken` and end within `directions`."""
    taken = list(taken)
    bands = [Band(index, rank) for index in range(directions // rank)]
    return [band for band in bands if not any(band.overlaps(other) for other in taken)]


def free_band(taken: list[Band], rank: int, directions: int | None, *, last: bool = False) -> Band:
    """The first of `free_bands`, or the last; directions None: the base has no known end, so there is no last either.

    Raises:
        InputError: there is none; says how many fit and what to do.
    """
    Band(0, rank)  # refuses a rank that is no number
    end = max((band.hi for band in taken), default=0) + 2 * rank  # where no end is known, the next band after the last
    free = free_bands(taken, rank, directions or end)
    if not free:
        raise InputError(
            f"no free band of rank {rank}: this base has room for {(directions or end) // rank}, {len(taken)} concepts "
            "use it. Train at a lower --rank, remove a concept, or start another --library for subjects never fused "
            "with these"
        )
    return free[-1 if last and directions else 0]
