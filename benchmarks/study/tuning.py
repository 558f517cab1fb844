"""Learning rates: for each family the best of a few, on identities that are not in the study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from filelock import FileLock

from spectral_fusion.atomic import atomic_file
from spectral_fusion.errors import InputError
from spectral_fusion.training.loop import Diverged
from study.conduct import Laboratory
from study.families import FAMILIES, Family
from study.identities import tuning_subjects
from study.judging import Shown
from study.methods.applied import applying
from study.methods.merging import summed
from study.training import Job

RATES = "rates.json"
SCORE_OF_DIVERGED = -1.0  # the lowest that a cosine can be


@dataclass(frozen=True)
class Rates:
    """Scores of the factors that were tried, by family; kept in a file.

    study: digest of the settings and the base that they hold for.
    """

    path: Path
    study: str
    scores: dict[str, dict[float, float]]

    @classmethod
    def load(cls, path: Path, study: str) -> Rates:
        """What was found so far; nothing where the file is missing or of another study.

        Raises:
            InputError: the file is damaged.
        """
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if said["study"] == study:
                scores = {
                    name: {float(f): float(v) for f, v in tried.items()} for name, tried in said["scores"].items()
                }
                return cls(path, study, scores)
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}); delete it and run tune again") from error
        return cls(path, study, {})

    @property
    def factors(self) -> dict[str, float]:
        """The best factor of each family that was tuned; of equals the smallest."""
        return {name: min(tried, key=lambda f: (-tried[f], f)) for name, tried in self.scores.items() if tried}

    def record(self, family: str, factor: float, score: float) -> None:
        """Keep a score, beside those that other processes have kept meanwhile; on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            for name, tried in Rates.load(self.path, self.study).scores.items():
                self.scores.setdefault(name, {}).update(tried)
            self.scores.setdefault(family, {})[factor] = score
            text = json.dumps({"study": self.study, "scores": self.scores}, indent=1)
            with atomic_file(self.path) as part:
                part.write_text(text + "\n", encoding="utf-8")


def tune(laboratory: Laboratory, families: Sequence[Family]) -> Rates:
    """Try each factor of the settings on each kind of adapter; what was tried before is kept.

    A factor's score is the mean identity of the tuning identities, alone and fused by the family's plain sum: a rate
    that is good for one concept alone may make it loud among others.
    """
    rates = Rates.load(laboratory.root / RATES, laboratory.digest)
    for family in dict.fromkeys(FAMILIES[family.tuned_as] for family in families):
        for factor in laboratory.settings.tuning_factors:
            if factor not in rates.scores.get(family.name, {}):
                laboratory.on_progress(f"tuning {family.name}: rates times {factor:g}")
                rates.record(family.name, factor, _score(laboratory, family, factor))
    return rates


def _score(laboratory: Laboratory, family: Family, factor: float) -> float:
    subjects = tuning_subjects(laboratory.settings.tuning_subjects)
    jury = laboratory.jury(subjects)
    fuse = applying(summed)
    try:
        adapters = [
            laboratory.shelf.get(Job(family, (subject,), slot, 0, factor))[0][0]
            for slot, subject in enumerate(subjects)
        ]
        shown: list[Shown] = []
        for place, adapter in enumerate(adapters):
            with fuse(laboratory.base, [adapter]):
                shown.append(jury.singles([place]))
        with fuse(laboratory.base, adapters):
            shown.append(jury.singles(range(len(adapters))))
    except Diverged as error:
        laboratory.on_progress(f"{family.name} at rates times {factor:g} diverged: {error}")
        return SCORE_OF_DIVERGED
    return fmean(seen.identity for part in shown for seen in part.seen)
