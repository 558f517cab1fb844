"""One adaptation: a base, a method, a learning rate and a seed in, a line of the record out."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from language.methods import METHODS, Context, adapt, trained_numbers
from language.models import Base, accuracy, answer_loss
from language.tasks import batch, without_padding

BATCH = 32
POINTS = 25  # of a loss curve


@dataclass(frozen=True)
class Adaptation:
    """Which run. purpose: `search` scores on the questions kept for that, `test` on the others.

    size: of the method; steps: how long.
    """

    base: str
    method: str
    purpose: str
    rate: float
    seed: int
    size: int
    steps: int


class Training:
    """A model with a method's adapter, and AdamW on what the method trains."""

    def __init__(self, base: Base, model: nn.Module, method: str, size: int, rate: float, steps: int) -> None:
        """
        Args:
            model: copied, so that it stays as it is.
            steps: how many will be done; AdaLoRA's schedule asks.
        """
        self.method = method
        self.model: Any = adapt(METHODS[method], Context(copy.deepcopy(model), base.targets, steps), size)
        self.model.train()
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=0.0)

    def step(self, number: int, rows: Tensor, labels: Tensor) -> float:
        """One step; returns the loss of the answers. Where that is not finite, nothing is changed."""
        rows, labels = without_padding(rows, labels)
        out = self.model(input_ids=rows, labels=labels)
        loss = answer_loss(out.logits, labels)
        if math.isfinite(value := loss.item()):
            self.optimizer.zero_grad()
            # AdaLoRA adds its penalty to the model's own loss; for all others the two are the same
            (out.loss if self.method == "adalora" else loss).backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            if self.method == "adalora":
                self.model.base_model.update_and_allocate(number)
        return value


def train(base: Base, model: nn.Module, run: Adaptation) -> dict[str, Any]:
    """Adapt a copy of the model; returns what was found.

    Returns:
        numbers; losses, means of equal parts of the training, of the answers alone; accuracy on the shifted task and on
        the one learned first; seconds of the processor a step; diverged.
    """
    torch.manual_seed(run.seed)
    training = Training(base, model, run.method, run.size, run.rate, run.steps)
    numbers = trained_numbers(training.model)
    warm = max(1, run.steps // 20)
    decay = torch.optim.lr_scheduler.LambdaLR(
        training.optimizer, lambda step: min((step + 1) / warm, max(0.0, (run.steps - step) / (run.steps - warm)))
    )
    losses: list[float] = []
    begin = time.process_time()
    for step in range(run.steps):
        losses.append(training.step(step, *batch(base.shifted, "train", BATCH, f"{run.seed} {step}")))
        if not math.isfinite(losses[-1]):
            break
        decay.step()
    seconds = (time.process_time() - begin) / len(losses)
    diverged = not math.isfinite(losses[-1])
    part = "valid" if run.purpose == "search" else "test"
    return {
        "numbers": numbers,
        "losses": [] if diverged else means(losses),
        "accuracy": 0.0 if diverged else accuracy(training.model, base.shifted, part),
        "kept": 0.0 if diverged else accuracy(training.model, base.learned, part),
        "step": round(seconds, 5),
        "diverged": diverged,
    }


def means(values: list[float], points: int = POINTS) -> list[float]:
    """Means of so many equal parts, fewer where there are not as many values."""
    points = min(points, len(values))
    edges = [round(i * len(values) / points) for i in range(points + 1)]
    return [round(sum(values[a:b]) / (b - a), 4) for a, b in pairwise(edges)]
