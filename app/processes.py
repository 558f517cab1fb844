"""Verbs of the command line as processes of their own: they outlive the browser's tab, and the server too."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil

from spectral_fusion.journal import Entry, read_journal

RECORD = "process.json"
JOURNAL = "journal.jsonl"
LOG = "log.txt"


class VerbProcess:
    """`spectral-fusion <verb>` in a folder that holds all that is known of it: process, journal and log.

    Everything is read from disk, so any server finds it again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, arguments: Sequence[str]) -> None:
        """Start the verb; `--journal` is added. The folder is there already."""
        command = [sys.executable, "-m", "spectral_fusion", *arguments, "--journal", str(self.folder / JOURNAL)]
        with (self.folder / LOG).open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        # The number of a process is given out again some day; with the moment of its start it is unique.
        record = {"pid": child.pid, "created": psutil.Process(child.pid).create_time()}
        (self.folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
        threading.Thread(target=child.wait, daemon=True).start()  # an ended child stays a zombie until asked for

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process() is not None

    def stop(self) -> None:
        """Ask it to stop; a training saves a checkpoint between two steps. Nothing happens where it has ended."""
        process = self._process()
        if process is not None:
            process.send_signal(signal.SIGTERM)

    def entries(self) -> list[Entry]:
        """The journal so far."""
        return read_journal(self.folder / JOURNAL)

    def last_words(self) -> str:
        """The last line that it printed; empty where there is none."""
        log = self.folder / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _process(self) -> psutil.Process | None:
        record = self.folder / RECORD
        if not record.is_file():
            return None
        known = json.loads(record.read_text(encoding="utf-8"))
        try:
            process = psutil.Process(known["pid"])
            same = process.create_time() == known["created"] and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if same else None
