"""One adaptation: a base, a method, a learning rate and a seed in, a line of the record out."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from language.methods import METHODS, Context, adapt, trained_numbers
from language.models import Base, accuracy, answer_loss
from language.tasks import batch

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


def train(base: Base, model: nn.Module, run: Adaptation) -> dict[str, Any]:
    """Adapt a copy of the model; returns what was found.

    Returns:
        numbers; losses, means of equal parts of the training, of the answers alone; accuracy on the shifted task and on
        the one learned first; seconds of the processor a step; diverged.
    """
    torch.manual_seed(run.seed)
    method = METHODS[run.method]
    adapted: Any = adapt(method, Context(copy.deepcopy(model), base.targets, run.steps), run.size)
    numbers = trained_numbers(adapted)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=run.rate, weight_decay=0.0)
    warm = max(1, run.steps // 20)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.0, (run.steps - step) / (run.steps - warm)))
    )
    adapted.train()
    losses: list[float] = []
    begin = time.process_time()
    for step in range(run.steps):
        rows, labels = batch(base.shifted, "train", BATCH, f"{run.seed} {step}")
        out = adapted(input_ids=rows, labels=labels)
        loss = answer_loss(out.logits, labels)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        optimizer.zero_grad()
        # AdaLoRA adds its penalty to the model's own loss; for all others the two are the same
        (out.loss if run.method == "adalora" else loss).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay.step()
        if run.method == "adalora":
            adapted.base_model.update_and_allocate(step)
    seconds = (time.process_time() - begin) / len(losses)
    diverged = not math.isfinite(losses[-1])
    part = "valid" if run.purpose == "search" else "test"
    return {
        "numbers": numbers,
        "losses": [] if diverged else means(losses),
        "accuracy": 0.0 if diverged else accuracy(adapted, base.shifted, part),
        "kept": 0.0 if diverged else accuracy(adapted, base.learned, part),
        "step": round(seconds, 5),
        "diverged": diverged,
    }


def means(values: list[float], points: int = POINTS) -> list[float]:
    """Means of so many equal parts, fewer where there are not as many values."""
    points = min(points, len(values))
    edges = [round(i * len(values) / points) for i in range(points + 1)]
    return [round(sum(values[a:b]) / (b - a), 4) for a, b in pairwise(edges)]
