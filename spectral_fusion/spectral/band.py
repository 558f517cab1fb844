"""A band: the slice of singular directions that one concept owns in every adapted layer."""

from dataclasses import dataclass

from spectral_fusion.errors import InputError


@dataclass(frozen=True)
class Band:
    """Singular directions `[index * rank, (index + 1) * rank)`, counted from the largest singular value.

    Bands of one rank are disjoint as soon as their indices differ, which is what makes concepts add up without
    interference.

    Raises:
        InputError: the index is negative, the rank is below one, or either is not a whole number.
    """

    index: int
    rank: int

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise InputError(f"rank {self.rank!r} spans no direction; give a whole number from 1 up")
        if type(self.index) is not int or self.index < 0:
            raise InputError(f"band {self.index!r} does not exist; bands count from 0, give a whole number from 0 up")

    @property
    def lo(self) -> int:
        """First singular direction of the band."""
        return self.index * self.rank

    @property
    def hi(self) -> int:
        """One past the last singular direction of the band."""
        return self.lo + self.rank

    def overlaps(self, other: "Band") -> bool:
        """Whether the two bands share a singular direction."""
        return self.lo < other.hi and other.lo < self.hi
