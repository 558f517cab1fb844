"""Trained concepts, kept: found again where family, photos, settings and base are the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from safetensors import safe_open

from spectral_fusion.atomic import atomic_file
from spectral_fusion.base.interface import Base
from spectral_fusion.concept import Concept
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.evaluate.lora import Lora
from spectral_fusion.training.distillation import Predictions
from spectral_fusion.training.loop import Diverged
from spectral_fusion.training.single import TrainingContext
from study.activations import Grams
from study.identities import photos
from study.settings import Settings
from study.training import Adapter, Job, Recipe, context_jobs, make_recipe, train


@dataclass(frozen=True)
class Shelf:
    """The folder of one study's concepts and photos, and the base that they are trained on.

    neutral: makes the inputs of the base on neutral prompts; called at most once.
    predictions: of the base, shared by all trainings.
    """

    root: Path
    base: Base
    settings: Settings
    neutral: Callable[[], Grams]
    predictions: Predictions = field(default_factory=Predictions)

    @cached_property
    def _neutral(self) -> Grams:
        return self.neutral()

    def folders(self, job: Job) -> list[ImageFolder]:
        """The photos of each of the job's subjects."""
        return [photos(subject, self.root / "photos", self.settings.photos) for subject in job.subjects]

    def has(self, job: Job) -> bool:
        """Whether the job is done, or known to diverge."""
        recipe = self._recipe(job)
        return self._diverged(recipe) is not None or self._find(recipe) is not None

    def get(self, job: Job) -> tuple[list[Adapter], float | None]:
        """The adapters of a job, trained now if they are not there; and the seconds that it took if it was now.

        Raises:
            Diverged: the training diverges, now or when it was tried.
        """
        recipe = self._recipe(job)
        if (reason := self._diverged(recipe)) is not None:
            raise Diverged(reason)
        if (found := self._find(recipe)) is not None:
            return found, None
        neutral = self._neutral if job.family.neutral_penalty else {}
        try:
            others = [self.get(before)[0][0] for before in context_jobs(job, self.settings)]
            context = TrainingContext(others, predictions=self.predictions)
            adapters, seconds = train(self.base, recipe, neutral, context)
        except Diverged as error:
            self._mark_diverged(recipe, str(error))
            raise
        for path, adapter in zip(self._paths(job), adapters, strict=True):
            adapter.save(path)
        return [_load(path) for path in self._paths(job)], seconds

    def _recipe(self, job: Job) -> Recipe:
        return make_recipe(self.base, job, self.folders(job), self.settings)

    def _paths(self, job: Job) -> list[Path]:
        folder = self.root / "concepts" / job.family.name
        label = f"seed{job.seed}-slot{job.slot}-rate{job.factor:g}"
        if job.family.joint:
            label += f"-of{len(job.subjects)}"
        return [folder / f"{label}-{subject.name}.safetensors" for subject in job.subjects]

    def _find(self, recipe: Recipe) -> list[Adapter] | None:
        paths = self._paths(recipe.job)
        if not all(path.is_file() for path in paths):
            return None
        adapters = [_load(path) for path in paths]
        return adapters if all(_facts(adapter) == recipe.facts for adapter in adapters) else None

    def _marker(self, job: Job) -> Path:
        return self._paths(job)[0].with_suffix(".diverged.json")

    def _diverged(self, recipe: Recipe) -> str | None:
        marker = self._marker(recipe.job)
        if not marker.is_file():
            return None
        said = json.loads(marker.read_text(encoding="utf-8"))
        return said["reason"] if said["facts"] == recipe.facts else None

    def _mark_diverged(self, recipe: Recipe, reason: str) -> None:
        with atomic_file(self._marker(recipe.job)) as part:
            part.write_text(json.dumps({"reason": reason, "facts": recipe.facts}), encoding="utf-8")


def _load(path: Path) -> Adapter:
    """A concept file or a LoRA of the study; each says in its header what it is."""
    with safe_open(path, framework="pt") as file:
        is_concept = "spectral_fusion.format_version" in file.metadata()
    return Concept.load(path) if is_concept else Lora.load(path)


def _facts(adapter: Adapter) -> dict:
    return adapter.training if isinstance(adapter, Concept) else adapter.facts
