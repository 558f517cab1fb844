"""One round of one concept as a worker gets it: everything that the result depends on, and nothing of the library."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from spectral_fusion.errors import InputError
from spectral_fusion.training.config import PredictionType, ResolvedConfig

Blob = Path | bytes
"""A file or folder that the worker can read, or its content: a folder's is a tar archive."""


@dataclass(frozen=True)
class Setup:
    """What all workers of a run have in common.

    threads: of the processor, for each worker. Sums depend on their number, so all have the same.
    """

    base: str
    prediction_type: PredictionType | None
    low_memory: bool
    threads: int


@dataclass(frozen=True)
class Task:
    """What `Trainer.run` trains.

    band: index, rank and side.
    facts: what the concept's file keeps of how it was trained.
    others: concept files to train beside; start: of the round before; checkpoint: to go on from.
    validation: pictures to measure on.
    last: whether the concept is done after this round, so that a preview of it is drawn.
    """

    name: str
    round: int
    config: ResolvedConfig
    band: tuple[int, int, str]
    facts: dict[str, Any] = field(repr=False)
    images: Blob = field(repr=False)
    others: tuple[Blob, ...] = field(default=(), repr=False)
    start: Blob | None = field(default=None, repr=False)
    checkpoint: Blob | None = field(default=None, repr=False)
    validation: Blob | None = field(default=None, repr=False)
    last: bool = False

    def packed(self) -> Task:
        """The same with all content in it, for a worker on another machine."""
        return replace(
            self,
            images=packed(self.images),
            others=tuple(packed(other) for other in self.others),
            start=None if self.start is None else packed(self.start),
            checkpoint=None if self.checkpoint is None else packed(self.checkpoint),
            validation=None if self.validation is None else packed(self.validation),
        )


@dataclass(frozen=True)
class Stepped:
    """A step is done."""

    step: int
    steps: int
    loss: float
    samples: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Kept:
    """The file of a checkpoint, from which another worker can go on."""

    checkpoint: bytes = field(repr=False)


@dataclass(frozen=True)
class Trained:
    """The task is done: the concept's file in float32, which loses nothing; and the preview's, after the last round."""

    concept: bytes = field(repr=False)
    preview: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Failed:
    """The task cannot be done. `final`: no other worker could do it either."""

    reason: str
    final: bool


@dataclass(frozen=True)
class Stopped:
    """The worker was asked to stop, and did after a checkpoint."""


Event = Stepped | Kept | Trained | Failed | Stopped
LAST = (Trained, Failed, Stopped)
"""The events after which no other comes."""


@dataclass(frozen=True)
class Hello:
    """What a worker is: results depend on it."""

    place: str
    versions: str
    base: str


class WorkerLost(Exception):
    """A worker's process is gone."""


class Worker(Protocol):
    """A process that trains, here or elsewhere. Each of the methods may raise `WorkerLost`."""

    def hello(self) -> Hello:
        """What the worker is; waits until it has opened its base."""

    def run(self, task: Task) -> Iterator[Event]:
        """How the training goes; the last event is `Trained`, `Failed` or `Stopped`."""

    def stop(self) -> None:
        """Ask for an end between two steps; may be called while `run` goes on elsewhere."""

    def close(self) -> None:
        """End the process."""


def check_hello(hello: Hello, wanted: Hello) -> None:
    """Raises InputError where a worker would train something else than this program does."""
    if hello.versions != wanted.versions:
        mine, its = (set(versions.split(", ")) for versions in (wanted.versions, hello.versions))
        raise InputError(
            f"the worker on {hello.place} has {', '.join(sorted(its - mine))}, this program "
            f"{', '.join(sorted(mine - its))}; install the same versions on all machines"
        )
    if hello.base != wanted.base:
        raise InputError(
            f"the worker on {hello.place} opened another base: its fingerprint is {hello.base}, here {wanted.base}; "
            "put the same files on all machines, or give --base a hub id"
        )


def packed(blob: Blob) -> bytes:
    """The content of a file, or of a folder as a tar archive."""
    if isinstance(blob, bytes):
        return blob
    if blob.is_file():
        return blob.read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(blob, arcname=blob.resolve().name)
    return buffer.getvalue()


@contextmanager
def unpacked(blob: Blob, *, folder: bool = False) -> Iterator[Path]:
    """A path with this content, for as long as the context lasts."""
    if isinstance(blob, Path):
        yield blob
        return
    with TemporaryDirectory() as place:
        if not folder:
            path = Path(place) / "content.safetensors"
            path.write_bytes(blob)
            yield path
            return
        with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
            archive.extractall(place, filter="data")
        yield next(Path(place).iterdir())
