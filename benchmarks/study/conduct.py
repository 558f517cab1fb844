"""Doing the runs of a study that are not done yet."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from torch import nn

from spectral_fusion.atomic import atomic_folder
from spectral_fusion.base.interface import Base
from spectral_fusion.evaluate.scorers import Scorers
from spectral_fusion.evaluate.similarity import Photos
from spectral_fusion.training.loop import Diverged
from study.activations import Grams
from study.identities import Subject, pairs, photos, study_subjects
from study.judging import Jury, Shown
from study.methods.applied import applying
from study.methods.inputs import neutral_inputs
from study.methods.merging import summed
from study.plan import Plan
from study.runs import Journal, Key, Run
from study.settings import Settings
from study.shelf import Shelf
from study.sizes import megabytes, trainable_numbers
from study.training import Adapter

OnProgress = Callable[[str], None]
RUNS, PICTURES = "runs.jsonl", "pictures"


class Laboratory:
    """A base, its scorers, and the folder in which trained concepts, pictures and results lie."""

    def __init__(
        self,
        root: Path,
        base: Base,
        scorers: Scorers,
        settings: Settings,
        on_progress: OnProgress = lambda _: None,
    ):
        """
        Args:
            on_progress: told what is done now, and of lines that are damaged.
        """
        self.root, self.base, self.scorers, self.settings = root, base, scorers, settings
        self.on_progress = on_progress
        self.shelf = Shelf(root, base, settings, self._neutral_inputs)
        self.study_jury = cache(lambda seed: self.jury(study_subjects(seed, settings.slots)))

    @property
    def digest(self) -> str:
        """What a run's result depends on beside its key."""
        parts = f"{self.settings.digest} {self.base.fingerprint}"
        return hashlib.sha256(parts.encode()).hexdigest()[:12]

    def journal(self) -> Journal:
        """The finished runs."""
        return Journal(self.root / RUNS, self.digest, self.on_progress)

    def jury(self, subjects: Sequence[Subject]) -> Jury:
        """Judges of these subjects, one another's nearest rivals."""
        folders = [photos(subject, self.root / "photos", self.settings.photos) for subject in subjects]
        return Jury(self.base, self.scorers, Photos.of(folders, self.scorers), subjects, self.settings)

    def conduct(self, plan: Plan, *, until: float = float("inf")) -> int:
        """Do what is missing of a plan; returns how many runs are left.

        Args:
            until: a time of `time.monotonic()` after which no run begins.
        """
        journal = self.journal()
        missing = [key for key in plan.runs() if key not in journal]
        for number, key in enumerate(missing):
            if time.monotonic() > until:
                return len(missing) - number
            self.on_progress(f"{number + 1} of {len(missing)}: {key}")
            journal.add(self.run(plan, key))
        return 0

    def run(self, plan: Plan, key: Key) -> Run:
        """One run: train what is missing, fuse, draw, score. The base is afterwards as before."""
        begin = time.perf_counter()
        try:
            run = self._alone(plan, key) if key.kind == "alone" else self._fused(plan, key)
        except Diverged as error:
            self.on_progress(f"{key} diverged: {error}")
            return Run(key, self.digest, "diverged", reason=str(error))
        run.figures["seconds"] = time.perf_counter() - begin
        return run

    def _alone(self, plan: Plan, key: Key) -> Run:
        family = plan.family(key)
        (job,) = plan.jobs(key, family)
        (adapter,), trained = self.shelf.get(job)
        with applying(summed)(self.base, [adapter]):
            shown = self.study_jury(key.seed).singles([key.subject])
        figures = {"parameters": trainable_numbers(family, adapter), "megabytes": megabytes(family, adapter)}
        if trained is not None:
            figures["training seconds"] = trained
        return self._finished(key, {"singles": shown}, figures)

    def _fused(self, plan: Plan, key: Key) -> Run:
        method = next(method for method in plan.methods if method.name == key.name)
        adapters: list[Adapter] = []
        for job in plan.jobs(key, method.family):
            adapters += self.shelf.get(job)[0]
        jury, together = self.study_jury(key.seed), pairs(key.place, self.settings.pairs)
        begin = time.perf_counter()
        with method.fuse(self.base, adapters):
            fusing = time.perf_counter() - begin
            shown = {
                "singles": jury.singles(range(key.place)),
                "pairs": jury.pairs(together, regions=False),
                "regions": jury.pairs(together, regions=True),
            }
        return self._finished(key, shown, {"fusing seconds": fusing})

    def _finished(self, key: Key, shown: dict[str, Shown], figures: dict[str, float]) -> Run:
        """Keep the pictures, and make the record."""
        with atomic_folder(self.root / PICTURES / str(key)) as part:
            for scene, found in shown.items():
                for number, picture in enumerate(found.pictures):
                    picture.save(part / f"{scene}-{number:03d}.png")
        return Run(key, self.digest, "done", {scene: found.seen for scene, found in shown.items()}, figures)

    def _neutral_inputs(self) -> Grams:
        self.on_progress("layer inputs of neutral prompts")
        names = [name for name, layer in self.base.layers().items() if isinstance(layer, nn.Linear)]
        return neutral_inputs(self.base, names, self.settings)
