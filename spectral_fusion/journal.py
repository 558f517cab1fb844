"""A job as it goes: a JSON line for each event, for another process to follow."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO, cast, get_args

from spectral_fusion.errors import InputError

BEGIN = b'{"time": '  # of each line
LONGEST_GAP = 1000  # bytes
Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Entry:
    """One event. `time` in seconds since 1970; `outcome` on the last one of a job that ended by itself."""

    time: float
    data: dict[str, Any]
    outcome: Outcome | None = None


class Journal:
    """`with Journal(path) as journal: journal.write(step=1)`. Its last line says how the block ended.

    A job that was killed leaves no such line: whoever reads sees that the process is gone.
    """

    def __init__(self, path: str | Path, *, append: bool = False):
        """append: go on with the journal of a job that is resumed, instead of beginning it anew."""
        self.path, self.append = Path(path), append
        self._file: TextIO | None = None

    def __enter__(self) -> Journal:
        self._refuse_other_files()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a" if self.append else "w", encoding="utf-8", buffering=1)
        if self.append:
            self._file.write("\n")  # ends a line that a kill cut off
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self._line({"outcome": "finished"})
        elif isinstance(error, KeyboardInterrupt):
            self._line({"outcome": "stopped"})
        else:
            known = isinstance(error, (InputError, OSError))
            text = str(error) if known else f"{type(error).__name__}: {error}"
            self._line({"outcome": "failed", "data": {"error": text}})
        cast(TextIO, self._file).close()

    def _refuse_other_files(self) -> None:
        """Raises InputError where a file is there that is no journal: beginning one would empty it."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            first = file.read(LONGEST_GAP).lstrip(b"\n")[: len(BEGIN)]
        if not BEGIN.startswith(first):  # a kill may have cut it off
            raise InputError(f"{self.path} is there and is no journal; choose another file for --journal")

    def write(self, **data: Any) -> None:
        """Add an event of JSON values."""
        self._line({"data": data})

    def _line(self, entry: dict[str, Any]) -> None:
        cast(TextIO, self._file).write(json.dumps({"time": time.time()} | entry) + "\n")


def read_journal(path: str | Path) -> list[Entry]:
    """All events so far; none where there is no journal yet.

    A line that is being written now, that a kill cut off, or that is no event, is left out.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    entries = []
    for line in text.splitlines():
        if entry := _entry(line):
            entries.append(entry)
    return entries


def _entry(line: str) -> Entry | None:
    """The event of a line; None where it is none: a disk, or another program, may have left anything."""
    try:
        record = json.loads(line)
        moment, data, outcome = float(record["time"]), record.get("data", {}), record.get("outcome")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    if not (isfinite(moment) and isinstance(data, dict) and outcome in (None, *get_args(Outcome))):
        return None
    return Entry(moment, data, outcome)
