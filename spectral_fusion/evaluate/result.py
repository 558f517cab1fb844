"""What an evaluation found: plain records, as JSON too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

from PIL import Image

Setting = Literal["alone", "fused", "together", "regions", "places"]
SETTINGS: dict[Setting, str] = {
    "alone": "only this concept on the base",
    "fused": "all concepts on the base, one in the prompt",
    "together": "all concepts in one picture",
    "regions": "all concepts in one picture, each prompt in its own region",
    "places": "all concepts in one picture, each drawn by itself, cut out and put in its place",
}


@dataclass(frozen=True)
class Drawing:
    """One generated picture. `concept` is None where all are in it."""

    setting: Setting
    concept: str | None
    prompt: str
    seed: int
    image: Image.Image


@dataclass(frozen=True)
class Scores:
    """Of one method in one setting.

    identity: [concept][seed], the mean cosine with the concept's own photos.
    alignment: [seed], the mean cosine with the prompt in plain words.
    confusion: [concept that was asked for][concept that owns the nearest photo], counts of pictures or crops.
    """

    identity: list[list[float]]
    alignment: list[float]
    confusion: list[list[int]]

    @property
    def accuracy(self) -> float:
        """Share of pictures whose nearest photo is one of the concept that was asked for."""
        total = sum(map(sum, self.confusion))
        return sum(row[number] for number, row in enumerate(self.confusion)) / total

    @property
    def mean_identity(self) -> float:
        """Over concepts and seeds."""
        return fmean(fmean(seeds) for seeds in self.identity)


@dataclass(frozen=True)
class MethodResult:
    """One way of fusing.

    parameters: trainable numbers of one concept.
    scores: of the settings that the method knows: not all can be bound to places.
    overlap: [concept][concept], |cosine| of the deltas; energy: [whose delta][whose prompts].
    """

    name: str
    parameters: int
    scores: dict[Setting, Scores]
    overlap: list[list[float]]
    energy: list[list[float]]
    drawings: tuple[Drawing, ...] = field(repr=False)

    def identity_lost(self) -> list[float]:
        """For each concept how much identity similarity fusing costs; negative where it gains."""
        pairs = zip(self.scores["alone"].identity, self.scores["fused"].identity, strict=True)
        return [fmean(alone) - fmean(fused) for alone, fused in pairs]


@dataclass(frozen=True)
class Subject:
    """One concept as the report shows it. `own_similarity`: the mean cosine of its photos with one another."""

    name: str
    trigger: str
    class_word: str
    own_similarity: float
    photos: tuple[Image.Image, ...] = field(repr=False)


@dataclass(frozen=True)
class Evaluation:
    """Everything that `evaluate` found.

    base_alignment: the base's own alignment with the same prompts in plain words, [seed], by setting.
    settings: how the pictures were sampled.
    """

    subjects: tuple[Subject, ...]
    methods: tuple[MethodResult, ...]
    base_alignment: dict[Setting, list[float]]
    base_drawings: tuple[Drawing, ...] = field(repr=False)
    settings: dict[str, Any]
    facts: dict[str, str] = field(default_factory=dict)
    """Anything else that the report should say, such as times."""

    def to_json(self) -> dict[str, Any]:
        """All figures, without pictures, as JSON values."""
        methods = []
        for method in self.methods:
            scores = {
                setting: asdict(found) | {"accuracy": found.accuracy, "mean_identity": found.mean_identity}
                for setting, found in method.scores.items()
            }
            methods.append(
                {
                    "name": method.name,
                    "parameters": method.parameters,
                    "scores": scores,
                    "identity_lost_by_fusing": method.identity_lost(),
                    "overlap": method.overlap,
                    "energy": method.energy,
                }
            )
        return {
            "concepts": [
                {
                    "name": subject.name,
                    "trigger": subject.trigger,
                    "class_word": subject.class_word,
                    "photos": len(subject.photos),
                    "own_similarity": subject.own_similarity,
                }
                for subject in self.subjects
            ],
            "methods": methods,
            "base_alignment": self.base_alignment,
            "settings": self.settings,
            "facts": self.facts,
        }


def spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 for one."""
    return stdev(values) if len(values) > 1 else 0.0
