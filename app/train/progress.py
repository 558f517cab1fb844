"""How far a training is, from its journal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from spectral_fusion.journal import Entry

Kind = Literal["waiting", "preparing", "training", "stopping", "finished", "stopped", "failed"]
ACTIVE = ("waiting", "preparing", "training", "stopping")
SMOOTHING = 0.95  # of the loss: one step's depends mostly on its timesteps
RECENT = 50  # steps that the time left is judged by
FIELDS = ("loss", "probe_loss", "samples", "likeness")


@dataclass(frozen=True)
class Point:
    """What one step told. `time` in seconds since 1970; `likeness` of its samples to the photos, where known."""

    step: int
    loss: float
    time: float
    probe_loss: float | None = None
    samples: bool = False
    likeness: float | None = None


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands.

    Attributes:
        points: one for each step done, also those before it was resumed.
        steps: in all; 0 before the first is done.
        error: of a failed one, one line.
    """

    kind: Kind
    points: tuple[Point, ...] = ()
    steps: int = 0
    error: str = ""

    @property
    def step(self) -> int:
        """Steps done."""
        return self.points[-1].step if self.points else 0

    @property
    def seconds_left(self) -> float | None:
        """By the pace of the last steps; None before there is one."""
        times = [point.time for point in self.points[-RECENT:]]
        if len(times) < 2:
            return None
        pace = median(after - before for before, after in pairwise(times))
        return pace * (self.steps - self.step)


def read_points(entries: list[Entry]) -> tuple[tuple[Point, ...], int]:
    """The steps that a journal tells of, and how many there will be.

    A resumed training goes back to its checkpoint and does some steps again: those replace the old ones.
    """
    points: list[Point] = []
    steps = 0
    for entry in entries:
        data = {name: value for name, value in entry.data.items() if name in FIELDS}
        step, last = entry.data.get("step"), entry.data.get("steps")
        if type(step) is not int or type(last) is not int or not _is_number(data.get("loss")):
            continue
        if not all(data.get(name) is None or _is_number(data[name]) for name in ("probe_loss", "likeness")):
            continue
        steps = last
        while points and points[-1].step >= step:
            points.pop()
        points.append(Point(step=step, time=entry.time, **data))
    return tuple(points), steps


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def smoothed(points: Sequence[Point]) -> list[float]:
    """The loss after each step as a moving average, unbiased from the first step on."""
    means, total, weight = [], 0.0, 0.0
    for point in points:
        total = SMOOTHING * total + (1 - SMOOTHING) * point.loss
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        means.append(total / weight)
    return means
