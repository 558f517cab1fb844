"""From pictures to plain numbers that a JSON line can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from spectral_fusion.base.interface import Base
from spectral_fusion.base.regions import Box
from spectral_fusion.evaluate.boxes import crop_square
from spectral_fusion.evaluate.judge import CROWD_MARGIN
from spectral_fusion.evaluate.painter import joined, regions_of, subject_words
from spectral_fusion.evaluate.scorers import Scorers
from spectral_fusion.evaluate.similarity import Photos
from study.identities import Subject
from study.painting import Request, paint
from study.settings import Settings

DIGITS = 4


@dataclass(frozen=True)
class Seen:
    """What the scorers say of one subject in one picture.

    wanted: place of the subject in its set.
    similarity: to each subject of the set, the mean cosine with its photos.
    nearest: to each subject of the set, the largest cosine with one of its photos.
    alignment: cosine of the whole picture with its prompt in plain words.
    """

    wanted: int
    prompt: int
    seed: int
    similarity: list[float]
    nearest: list[float]
    alignment: float

    @property
    def identity(self) -> float:
        return self.similarity[self.wanted]

    def is_right(self, count: int) -> bool:
        """Whether, of the first `count` subjects, the nearest photo is of the wanted one."""
        return max(range(count), key=lambda place: self.nearest[place]) == self.wanted

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Shown:
    """Pictures, and what was seen in them."""

    pictures: list[Image.Image]
    seen: list[Seen]


@dataclass(frozen=True)
class Jury:
    """Draws the subjects of a set with whatever the base holds, and scores the pictures against their photos."""

    base: Base
    scorers: Scorers
    photos: Photos
    subjects: Sequence[Subject]
    settings: Settings

    def singles(self, places: Sequence[int]) -> Shown:
        """One subject a picture."""
        return self._show([[place] for place in places])

    def pairs(self, pairs: Sequence[tuple[int, int]], *, regions: bool) -> Shown:
        """Two subjects a picture, left and right; with `regions`, each trigger in its own half only."""
        return self._show([list(pair) for pair in pairs], regions=regions)

    def _show(self, asked: list[list[int]], *, regions: bool = False) -> Shown:
        """asked: for each picture, places of the subjects from left to right."""
        drawn = [
            (places, number, self._request(places, prompt, seed, regions))
            for places in asked
            for number, prompt in enumerate(self.settings.prompts)
            for seed in range(self.settings.pictures)
        ]
        pictures = paint(self.base, [request for _, _, request in drawn], self.settings)
        plain = [self._plain(places, number) for places, number, _ in drawn]
        alignment = self._alignment(pictures, plain)
        crops, owners = [], []
        for index, (places, _, _) in enumerate(drawn):
            for place, box in zip(places, self.base.places(len(places)), strict=True):
                crops.append(_crop(pictures[index], box, alone=len(places) == 1))
                owners.append((index, place))
        similarity, nearest = self._compare(crops)
        seen = [
            Seen(place, drawn[i][1], drawn[i][2].seed, similarity[row], nearest[row], alignment[i])
            for row, (i, place) in enumerate(owners)
        ]
        return Shown(pictures, seen)

    def _plain(self, places: Sequence[int], prompt: int) -> str:
        return self.settings.prompts[prompt].replace("{}", joined([self.subjects[p].class_word for p in places]))

    def _request(self, places: Sequence[int], prompt: str, seed: int, regions: bool) -> Request:
        subjects = [self.subjects[place] for place in places]
        apart = regions_of(subjects, prompt, self.base.places(len(subjects))) if regions else ()
        return Request(prompt.replace("{}", joined([subject_words(subject) for subject in subjects])), seed, apart)

    def _alignment(self, pictures: list[Image.Image], captions: list[str]) -> list[float]:
        distinct = list(dict.fromkeys(captions))
        cosines = self.scorers.text_alignment(pictures, distinct)
        own = torch.tensor([distinct.index(text) for text in captions])
        return _rounded(cosines.gather(1, own[:, None])[:, 0])

    def _compare(self, crops: list[Image.Image]) -> tuple[list[list[float]], list[list[float]]]:
        embedded = self.scorers.embed_identity(crops)
        cosines = embedded @ self.photos.embeddings.T
        nearest = [cosines[:, self.photos.owners == place].amax(1) for place in range(self.photos.concepts)]
        return _rounded(self.photos.similarity(embedded)), _rounded(torch.stack(nearest, dim=1))


def _crop(picture: Image.Image, box: Box, *, alone: bool) -> Image.Image:
    return crop_square(picture, box) if alone else crop_square(picture, box, CROWD_MARGIN)


def _rounded(values: Tensor) -> list:
    return torch.round(values.double(), decimals=DIGITS).tolist()
