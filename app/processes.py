"""Verbs of the command line as processes of their own: they outlive the browser's tab, and the server too."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import psutil

from spectral_fusion.errors import InputError
from spectral_fusion.journal import Entry, read_journal
from spectral_fusion_app.records import read_record, write_record

RECORD = "process.json"
JOURNAL = "journal.jsonl"
LOG = "log.txt"
STOPPING = "stopping"


@dataclass(frozen=True)
class ProcessState:
    """How it stands with a process. `entries`: its journal; `error`: of a failed one, one line."""

    kind: Literal["running", "stopping", "finished", "stopped", "failed"]
    entries: list[Entry]
    error: str = ""


class VerbProcess:
    """`spectral-fusion <verb>` in a folder that holds all that is known of it: process, journal and log.

    Everything is read from disk, so any server finds it again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, arguments: Sequence[str]) -> None:
        """Start the verb; `--journal` is added. The folder is there already."""
        (self.folder / STOPPING).unlink(missing_ok=True)
        command = [sys.executable, "-m", "spectral_fusion", *arguments, "--journal", str(self.folder / JOURNAL)]
        with (self.folder / LOG).open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        # The number of a process is given out again some day; with the moment of its start it is unique.
        record = {"pid": child.pid, "created": psutil.Process(child.pid).create_time()}
        write_record(self.folder / RECORD, record)
        threading.Thread(target=child.wait, daemon=True).start()  # an ended child stays a zombie until asked for

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process() is not None

    @property
    def seconds(self) -> float:
        """How long the process has run; 0 where it does not."""
        process = self._process()
        return time.time() - process.create_time() if process else 0.0

    def stop(self) -> None:
        """Ask it to stop; a training saves a checkpoint between two steps. Nothing happens where it has ended."""
        process = self._process()
        if process is not None:
            (self.folder / STOPPING).touch()
            process.terminate()

    def state(self) -> ProcessState:
        """Whether it runs, and how it ended if not."""
        running = self.running  # before its journal: a process that is gone has written all
        entries, asked = journal_entries(self.folder / JOURNAL), (self.folder / STOPPING).exists()
        if running:
            return ProcessState("stopping" if asked else "running", entries)
        last = entries[-1] if entries else None
        if last is not None and last.outcome is not None:
            return ProcessState(last.outcome, entries, last.data.get("error", ""))
        if asked:
            return ProcessState("stopped", entries)
        said = self._last_words()
        return ProcessState("failed", entries, f"it ended by itself{said and f': {said}'}")

    def _last_words(self) -> str:
        log = self.folder / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _process(self) -> psutil.Process | None:
        known = read_record(self.folder / RECORD)
        if known is None or type(known.get("pid")) is not int:
            return None
        try:
            process = psutil.Process(known["pid"])
            same = process.create_time() == known.get("created") and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, ValueError, OverflowError):
            return None
        return process if same else None


def journal_entries(path: Path) -> list[Entry]:
    """A journal's entries, read again only when it has grown: every open page asks once a second."""
    try:
        known = path.stat()
    except OSError:
        return []
    return _read_once(path, known.st_size, known.st_mtime_ns)


@lru_cache(maxsize=64)
def _read_once(path: Path, size: int, changed: int) -> list[Entry]:
    return read_journal(path)


class Run(Protocol):
    """What `Runs` keeps: a training, an evaluation."""

    id: str
    process: VerbProcess


R = TypeVar("R", bound=Run)


class Runs(Generic[R]):
    """All runs of one sort on one server, the newest first. One runs at a time: two would share memory that one needs.

    Attributes:
        what: the sort, as messages call it.
        record: the file in a run's folder that makes it one of them.
        make: a run from its folder.
    """

    what: ClassVar[str]
    record: ClassVar[str]
    make: ClassVar[Any]

    def __init__(self, root: Path, library: Path) -> None:
        """root: their folders lie here; library: where the concepts are."""
        self.root, self.library = root.absolute(), library.absolute()
        self._lock = threading.Lock()

    def list(self) -> list[R]:
        """All of them, the newest first."""
        records = sorted(self.root.glob(f"[0-9]*/{self.record}"), reverse=True)
        return [self.make(path.parent) for path in records if path.is_file()]

    def find(self, id: str) -> R:
        """One of them. Raises InputError where there is none."""
        for run in self.list():
            if run.id == id:
                return run
        raise InputError(f"there is no {self.what} {str(id)[:100]!r}; choose one of the list")

    def running(self) -> R | None:
        """The one that runs."""
        return next((run for run in self.list() if run.process.running), None)
