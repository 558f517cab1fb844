"""A band: the slice of singular directions that one concept is anchored in, in every adapted layer."""

from dataclasses import dataclass
from typing import Literal, get_args

from spectral_fusion.errors import InputError

Side = Literal["top", "bottom"]
Mode = Literal["additive", "rotational"]
"""What an adapter does with the directions of its band: it shifts them, or turns them."""


@dataclass(frozen=True)
class Band:
    """A slice of `rank` singular directions, counted from one end of the spectrum of each layer.

    With n the number of directions of a layer, a band on the top side is `[index * rank, (index + 1) * rank)`, the
    largest singular values first; on the bottom side it is `[n - (index + 1) * rank, n - index * rank)`.

    Bands of one rank and side are disjoint as soon as their indices differ. That keeps the singular vectors of two
    concepts apart. It does not keep additive deltas inside their bands: `A` and `B` are free, see `additive_factors`.

    Raises:
        InputError: the index is negative, the rank is below one, either is not a whole number, or the side is unknown.
    """

    index: int
    rank: int
    side: Side = "top"

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise InputError(f"rank {self.rank!r} spans no direction; give a whole number from 1 up")
        if type(self.index) is not int or self.index < 0:
            raise InputError(f"band {self.index!r} does not exist; bands count from 0, give a whole number from 0 up")
        if self.side not in get_args(Side):
            raise InputError(f"band side {self.side!r} is unknown; use one of {', '.join(get_args(Side))}")

    def __str__(self) -> str:
        return f"{'' if self.side == 'top' else 'bottom '}band {self.index} at rank {self.rank}"

    @property
    def label(self) -> str:
        """Which band of its rank it is: `top 3`."""
        return f"{self.side} {self.index}"

    @property
    def depth(self) -> int:
        """How many directions a layer must have to hold the band."""
        return (self.index + 1) * self.rank

    def within(self, directions: int) -> range:
        """The band's directions in a layer that has `directions` of them; `depth` may not exceed these."""
        first = self.depth - self.rank if self.side == "top" else directions - self.depth
        return range(first, first + self.rank)

    def overlaps(self, other: "Band", directions: int | None = None) -> bool:
        """Whether the two bands share a singular direction.

        Args:
            directions: of the layer. Bands counted from opposite ends are farther apart in a larger layer, so the
                smallest of several answers for all. None: not known, and opposite ends count as apart.
        """
        if self.side == other.side:
            return self.depth - self.rank < other.depth and other.depth - other.rank < self.depth
        return directions is not None and self.depth + other.depth > directions and _meet(self, other, directions)


def _meet(first: Band, second: Band, directions: int) -> bool:
    a, b = first.within(directions), second.within(directions)
    return a.start < b.stop and b.start < a.stop
