"""Several concepts trained for one another, in two rounds that do not depend on their order.

In round one each is trained as if it were alone. In round two each goes on for a part of the steps beside the frozen
results of round one of all others. Trainings of one round know nothing of one another, so they can run at once on any
number of machines, and no file depends on which concept came first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spectral_fusion.base.interface import Base
from spectral_fusion.concept import Concept
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.spectral import Band
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.distillation import Predictions
from spectral_fusion.training.loop import Progress
from spectral_fusion.training.single import TrainingContext, train

SECOND_ROUND = 0.5  # of the steps


@dataclass(frozen=True)
class Subject:
    """One of the concepts to train.

    config: its `steps` are those of both rounds; facts: what its file keeps of how it was trained.
    """

    images: ImageFolder
    config: ResolvedConfig
    band: Band
    facts: Mapping[str, Any]


OnProgress = Callable[[str, Progress], None]
"""Called after each step with the concept's name. Steps count on from round one to round two."""


def rounds(config: ResolvedConfig) -> tuple[ResolvedConfig, ResolvedConfig]:
    """The settings of round one and round two, whose steps add up to those asked for."""
    second = max(1, round(config.steps * SECOND_ROUND))
    return replace(config, steps=config.steps - second), replace(config, steps=second)


def train_together(
    base: Base,
    subjects: Sequence[Subject],
    *,
    predictions: Predictions | None = None,
    on_progress: OnProgress = lambda name, progress: None,
) -> list[Concept]:
    """Train several concepts for one another; the base is afterwards as before.

    Args:
        predictions: what the base predicted for earlier trainings, to be shared.

    Raises:
        InputError: something that was given cannot be used, or a training diverged or taught nothing.
    """
    known = predictions or Predictions()
    first = [_round(base, subject, 0, TrainingContext(predictions=known), on_progress) for subject in subjects]
    second = []
    for place, subject in enumerate(subjects):
        others = [concept for number, concept in enumerate(first) if number != place]
        context = TrainingContext(others=others, start=first[place], predictions=known)
        second.append(_round(base, subject, 1, context, on_progress))
    return second


def _round(base: Base, subject: Subject, number: int, context: TrainingContext, on_progress: OnProgress) -> Concept:
    settings = rounds(subject.config)
    done = settings[0].steps * number

    def tell(_: object, progress: Progress) -> None:
        on_progress(
            subject.config.name, replace(progress, step=done + progress.step, steps=done + settings[1].steps * number)
        )

    return train(base, subject.images, settings[number], subject.band, context, facts=dict(subject.facts), on_step=tell)
