"""Means with confidence intervals, paired by identity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

from scipy.stats import t

CONFIDENCE = 0.95
K = TypeVar("K")


@dataclass(frozen=True)
class Estimate:
    """A mean of `count` values, and half the width of its confidence interval: infinite for one value."""

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if math.isinf(self.half) else f"{self.mean:.3f} ± {self.half:.3f}"


def estimate_mean(values: Sequence[float]) -> Estimate:
    """The mean of independent values with Student's interval.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values to take the mean of")
    mean = fmean(values)
    if len(values) == 1:
        return Estimate(mean, math.inf, 1)
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return Estimate(mean, quantile * stdev(values) / math.sqrt(len(values)), len(values))


def estimate_difference(first: Mapping[K, float], second: Mapping[K, float]) -> Estimate:
    """The mean of `first - second` over what both have: each identity is compared with itself.

    Raises:
        ValueError: they have nothing in common.
    """
    return estimate_mean([first[key] - second[key] for key in first if key in second])
