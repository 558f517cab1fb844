"""Seconds a training step by method, in turn, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import nn

from language.models import Base
from language.tasks import batch
from language.training import BATCH, Training

WARM_UP = 3  # rounds that do not count


def step_ratios(base: Base, model: nn.Module, sizes: Mapping[str, int], rounds: int) -> dict[str, list[float]]:
    """A step of each method over a step of LoRA in the same round, by the processor's clock.

    Args:
        sizes: of the methods to time; LoRA is among them.
    """
    torch.manual_seed(0)
    steps = max(rounds, 20)
    trainings = {name: Training(base, model, name, size, 1e-4, steps) for name, size in sizes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for number in range(rounds):
        rows, labels = batch(base.shifted, "train", BATCH, str(number))
        order = [*trainings] if number % 2 else [*trainings][::-1]
        for name in order:
            begin = time.process_time()
            trainings[name].step(number, rows, labels)
            seconds[name].append(time.process_time() - begin)
    pairs = {name: zip(own, seconds["lora"], strict=True) for name, own in seconds.items()}
    return {name: [own / lora for own, lora in both][WARM_UP:] for name, both in pairs.items()}


def middle(ratios: Sequence[float]) -> str:
    """The median, and the interval that holds it with 95 % confidence: of the sorted values, by the sign test."""
    ordered = sorted(ratios)
    reach = 0.98 * len(ordered) ** 0.5
    low, high = (round((len(ordered) - 1) / 2 + sign * reach) for sign in (-1, 1))
    if low < 0:
        return f"{median(ordered):.3f}"
    return f"{median(ordered):.3f} ({ordered[low]:.3f} to {ordered[high]:.3f})"
