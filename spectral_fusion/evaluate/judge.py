"""From pictures to scores: identity, nearest photo, alignment with the prompt in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from spectral_fusion.evaluate.finding import Detector, Finder, seen_subjects
from spectral_fusion.evaluate.methods import Adapter
from spectral_fusion.evaluate.painter import Painter, joined
from spectral_fusion.evaluate.result import Drawing, Scores
from spectral_fusion.evaluate.scorers import Scorers
from spectral_fusion.evaluate.similarity import Photos, confusion

MARGIN = 0.25  # round a single subject
CROWD_MARGIN = 0.15  # round each of several subjects: less, so that a crop does not show the neighbours


@dataclass(frozen=True)
class Judge:
    """Scores what a painter drew, against the concepts' photos."""

    painter: Painter
    scorers: Scorers
    photos: Photos
    detector: Detector | Finder | None = None
    """Finds the subjects; None looks for them where the base puts them."""

    def singles(self, drawings: Sequence[Sequence[Drawing]], adapters: Sequence[Adapter]) -> Scores:
        """drawings: [concept][picture], one concept in each picture."""
        seen = [
            self._seen(part, [adapter.class_word], [number], MARGIN)[0]
            for number, (part, adapter) in enumerate(zip(drawings, adapters, strict=True))
        ]
        aligned = [self.alignment(part, a.class_word, a.name) for part, a in zip(drawings, adapters, strict=True)]
        return self._scores(seen, drawings, mean_of(aligned))

    def crowd(self, drawings: Sequence[Drawing], adapters: Sequence[Adapter]) -> Scores:
        """All concepts stand in each picture, left to right in the order of the prompt."""
        words = [adapter.class_word for adapter in adapters]
        seen = self._seen(drawings, words, range(len(adapters)), CROWD_MARGIN)
        aligned = self.alignment(drawings, joined(words))
        return self._scores([*seen], [drawings] * len(adapters), aligned)

    def _seen(self, drawings: Sequence[Drawing], words: Sequence[str], own: Sequence[int], margin: float) -> Tensor:
        """(subjects, pictures, width)."""
        images, places = [drawing.image for drawing in drawings], self.painter.base.places(len(words))
        return seen_subjects(images, words, own, self.photos, places, self.scorers, self.detector, margin)

    def alignment(self, drawings: Sequence[Drawing], words: str, concept: str | None = None) -> list[float]:
        """[seed]: the mean cosine of each picture, in the painter's order, with its prompt about `words`.

        Args:
            concept: whose own prompts they are; None: those of several.
        """
        prompts = self.painter.prompts(words, concept)
        cosines = self.scorers.text_alignment([drawing.image for drawing in drawings], prompts)
        own = torch.arange(len(prompts)).repeat_interleave(self.painter.config.seeds)
        return by_seed(cosines.gather(1, own[:, None])[:, 0], drawings)

    def _scores(
        self,
        seen: Sequence[Tensor],
        drawings: Sequence[Sequence[Drawing]],
        alignment: list[float],
    ) -> Scores:
        """seen: [concept] (pictures, width) of the drawings, [concept][picture]."""
        identity = [
            by_seed(self.photos.similarity(part)[:, number], of)
            for number, (part, of) in enumerate(zip(seen, drawings, strict=True))
        ]
        wanted = torch.cat([torch.full((len(part),), number) for number, part in enumerate(seen)])
        nearest = torch.cat([self.photos.nearest(part) for part in seen])
        return Scores(identity, alignment, confusion(wanted, nearest, len(seen)))


def by_seed(values: Tensor, drawings: Sequence[Drawing]) -> list[float]:
    """The mean of the values of each seed's drawings, seeds in order."""
    groups: dict[int, list[float]] = {}
    for value, drawing in zip(values.tolist(), drawings, strict=True):
        groups.setdefault(drawing.seed, []).append(value)
    return [fmean(groups[seed]) for seed in sorted(groups)]


def mean_of(rows: Sequence[Sequence[float]]) -> list[float]:
    """The mean over rows, column by column."""
    return [fmean(column) for column in zip(*rows, strict=True)]
