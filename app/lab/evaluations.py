"""Evaluations: each a process of its own with a folder of its own, which holds the report in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from spectral_fusion.errors import InputError
from spectral_fusion_app.processes import ProcessState, Runs, VerbProcess
from spectral_fusion_app.records import read_record, write_record
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.train.trainings import Trainings

RECORD = "evaluation.json"
REPORT = "report.html"
FIGURES = "report.json"
METHODS = ("spectral-sum", "spectral-mean", "lora-sum", "lora-mean")


@dataclass(frozen=True)
class EvaluateRequest:
    """What to compare. `folders`: the photos of each concept; `seeds`: pictures of each prompt."""

    names: tuple[str, ...]
    folders: tuple[Path, ...]
    base: str
    methods: tuple[str, ...] = METHODS[:1]
    seeds: int = 1
    steps: int = 20

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise InputError("an evaluation compares concepts with one another; choose two or more")
        if not self.methods or not set(self.methods) <= set(METHODS):
            raise InputError(f"methods {', '.join(self.methods)[:100]!r}: use some of {', '.join(METHODS)}")
        for name, low, high in (("seeds", 1, 10), ("steps", 1, 100)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}; give a number from {low} to {high}")

    def arguments(self, out: Path, library: Path) -> list[str]:
        """For the command line."""
        images = [part for folder in self.folders for part in ("--images", str(folder))]
        methods = [part for method in self.methods for part in ("--methods", method)]
        numbers = ["--seeds", str(self.seeds), "--steps", str(self.steps)]
        where = ["--base", self.base, "--library", str(library), "--out", str(out)]
        return ["evaluate", *self.names, *images, *methods, *numbers, *where]


class Evaluation:
    """One evaluation, running or not. `id` is the name of its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.id = folder, folder.name
        self.process = VerbProcess(folder)
        record = read_record(folder / RECORD) or {}
        names = record.get("names")
        self.readable = isinstance(names, list)
        self.names: list[str] = [str(name) for name in names] if isinstance(names, list) else ["unreadable record"]

    def state(self) -> ProcessState:
        """How it stands."""
        return self.process.state()

    def stage(self) -> str:
        """What is drawn now."""
        stages = [entry.data["stage"] for entry in self.state().entries if "stage" in entry.data]
        return stages[-1] if stages else "loading"

    @property
    def report(self) -> Path | None:
        """The report, once it is there."""
        path = self.folder / REPORT
        return path if path.is_file() else None

    def figures(self) -> dict[str, Any] | None:
        """The report's figures, once they are there."""
        path = self.folder / FIGURES
        return read_record(path)


class Evaluations(Runs[Evaluation]):
    """All evaluations of one server."""

    what, record, make = "evaluation", RECORD, Evaluation

    def start(self, request: EvaluateRequest) -> Evaluation:
        """Start one. Raises InputError where another one runs."""
        with self._lock:
            if self.running() is not None:
                raise InputError("another evaluation runs; wait until it is done, or cancel it")
            folder = self.root / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
            folder.mkdir(parents=True)
            write_record(folder / RECORD, {"names": request.names})
            evaluation = Evaluation(folder)
            evaluation.process.start(request.arguments(folder, self.library))
            return evaluation


class Evaluator:
    """Starts evaluations of concepts by name: it finds their photos and the base."""

    def __init__(self, studio: Studio, trainings: Trainings) -> None:
        self.studio, self.trainings = studio, trainings
        self.evaluations = Evaluations(studio.settings.evaluations, studio.settings.library)

    def start(self, names: Sequence[str], methods: Sequence[str] | None, seeds: int, steps: int) -> Evaluation:
        """Start one. Raises InputError."""
        request = EvaluateRequest(
            tuple(names),
            tuple(self._photos(name) for name in names),
            self.studio.state.base,
            tuple(methods or METHODS[:1]),
            seeds,
            steps,
        )
        return self.evaluations.start(request)

    def _photos(self, name: str) -> Path:
        """The photos of a concept: beside it in the library, else those that it was trained on here."""
        beside = self.studio.library.find(name).parent / "images"
        folder = beside if beside.is_dir() else self.trainings.photos(name)
        if folder is None:
            raise InputError(f"there are no photos of {name!r} to compare with; put some into its folder's images/")
        return folder
