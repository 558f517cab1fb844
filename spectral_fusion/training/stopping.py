"""Whether a training has stopped gaining."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Patience:
    """Counts measurements without gain, as transformers' EarlyStoppingCallback does.

    Args:
        limit: so many in a row end a training; 0: none ever does.
        best: the lowest loss so far.
        waited: measurements since.
    """

    limit: int
    best: float | None = None
    waited: int = 0

    def measure(self, loss: float) -> None:
        """Takes note of a loss."""
        gained = self.best is None or loss < self.best
        self.best = loss if gained else self.best
        self.waited = 0 if gained else self.waited + 1

    @property
    def is_over(self) -> bool:
        """Whether the training should end."""
        return 0 < self.limit <= self.waited
