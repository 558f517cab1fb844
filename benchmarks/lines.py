"""A record of finished runs: one JSON line a run, so that any kill loses the run that it hit and no other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spectral_fusion.atomic import atomic_file

Line = dict[str, Any]


class Lines:
    """Runs in a file, by the values of some fields; one process writes."""

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        """
        Args:
            key: the fields that say which run a line is of. Lines without them are torn: they are dropped, and their
                runs are done again.
        """
        self.path, self.key = path, key
        self._lines: dict[str, Line] = {}
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            found = [self._parsed(line) for line in text.splitlines()]
            self._lines = {self.name(line): line for line in found if line is not None}
            if None in found or (text and not text.endswith("\n")):
                with atomic_file(path) as part:
                    part.write_text("".join(f"{json.dumps(line)}\n" for line in self), encoding="utf-8")

    def __contains__(self, run: Mapping[str, Any]) -> bool:
        return self.name(run) in self._lines

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    def __len__(self) -> int:
        return len(self._lines)

    def name(self, run: Mapping[str, Any]) -> str:
        """Which run it is."""
        return json.dumps([run[field] for field in self.key])

    def add(self, run: Line) -> None:
        """Append a run, on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._lines[self.name(run)] = run

    def _parsed(self, line: str) -> Line | None:
        try:
            values = json.loads(line)
        except ValueError:
            return None
        return values if isinstance(values, dict) and all(field in values for field in self.key) else None
