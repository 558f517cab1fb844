"""A server of the page on a tiny base, as a process of its own, and what tests ask of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from concepts import make_concept
from spectral_fusion.concept import Library
from tiny import tiny_base

START_SECONDS = 180


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    place: Path
    process: subprocess.Popen[bytes]

    @property
    def pictures(self) -> list[Path]:
        return sorted((self.place / "out" / "pictures").glob("*.png"))

    @property
    def log(self) -> str:
        return (self.place / "server.log").read_text(encoding="utf-8", errors="replace")


def make_place(folder: Path) -> Path:
    """A folder with a tiny base and a library of two concepts for it."""
    base = tiny_base()
    base.pipeline.save_pretrained(folder / "base")
    library = Library(folder / "concepts")
    library.add(make_concept(base, "rex"))
    library.add(make_concept(base, "tom", band=1, seed=1))
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serve(place: Path, *flags: str, threads: int | None = 1) -> Iterator[Server]:
    """`spectral-fusion app` in a place, until the context ends. `threads` of torch; None: as many as it chooses."""
    port = free_port()
    command = [sys.executable, "-m", "spectral_fusion", "app", "--port", str(port)]
    command += ["--base", "base", "--library", "concepts", "--out", "out", *flags]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    began = time.monotonic()
    with (place / "server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                urllib.request.urlopen(url, timeout=10).read()
                break
            except OSError:
                waited = time.monotonic() - began
                if process.poll() is not None or waited > START_SECONDS:
                    raise AssertionError((place / "server.log").read_text()) from None
                time.sleep(0.05)
        yield Server(url, place, process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
