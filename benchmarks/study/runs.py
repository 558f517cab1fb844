"""The record of a study: one JSON line a run, appended when the run is done, so that any kill loses one run at most."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from spectral_fusion.atomic import atomic_file
from study.judging import Seen

Kind = Literal["alone", "fused"]
Status = Literal["done", "diverged"]


@dataclass(frozen=True)
class Key:
    """Which run.

    name: of the family, for a concept alone; of the method, for a fusion.
    place: which slot the concept alone was trained in, or how many concepts were fused.
    subject: the concept alone; 0 for a fusion, which has the first `place` of the set.
    factor: of the family's learning rates.
    """

    kind: Kind
    name: str
    seed: int
    place: int
    subject: int = 0
    factor: float = 1.0

    def __str__(self) -> str:
        where = f"slot{self.place}-subject{self.subject}" if self.kind == "alone" else f"of{self.place}"
        return f"{self.kind}-{self.name}-rate{self.factor:g}-seed{self.seed}-{where}"


@dataclass(frozen=True)
class Run:
    """One finished run.

    study: digest of settings and base; runs of other studies in the same file are left alone.
    seen: by scene: `singles`, and of fusions `pairs` and `regions`.
    figures: seconds, megabytes and trainable numbers.
    reason: why it diverged.
    """

    key: Key
    study: str
    status: Status = "done"
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    def to_line(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> Run:
        """Raises ValueError where the line is no run, whole and of this form."""
        try:
            values: dict[str, Any] = json.loads(line)
            seen = {scene: [Seen(**part) for part in parts] for scene, parts in values["seen"].items()}
            run = cls(**values | {"key": Key(**values["key"]), "seen": seen})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(str(error)) from error
        if run.status not in ("done", "diverged") or (run.status == "done" and not seen.get("singles")):
            raise ValueError(f"no finished run: {run.status}")
        return run


class Journal:
    """The runs of one study in a file that may hold others' too."""

    def __init__(self, path: Path, study: str, report: Callable[[str], None]):
        """
        Args:
            report: is told of each damaged line; it is taken out of the file, so that its run is done again.
        """
        self.path, self.study, self.report = path, study, report
        with self._locked():
            self._runs = self._read()

    def __contains__(self, key: Key) -> bool:
        return key in self._runs

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def __getitem__(self, key: Key) -> Run:
        return self._runs[key]

    def add(self, run: Run) -> None:
        """Append a run, on disk when this returns."""
        with self._locked(), self.path.open("a", encoding="utf-8") as file:
            file.write(run.to_line() + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._runs[run.key] = run

    def _locked(self) -> FileLock:
        """Several processes may share the file, each with runs of its own."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_suffix(".lock"))

    def _read(self) -> dict[Key, Run]:
        if not self.path.exists():
            return {}
        whole, runs, damaged = [], {}, 0
        text = self.path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                run = Run.from_line(line)
            except ValueError as error:
                self.report(f"{self.path.name}, line {number} is damaged ({error}); its run is done again")
                damaged += 1
                continue
            whole.append(line)
            if run.study == self.study:
                runs[run.key] = run
        if damaged or (text and not text.endswith("\n")):
            with atomic_file(self.path) as part:
                part.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
        return runs
