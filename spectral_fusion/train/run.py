"""The folder of one training: its checkpoint, its lock, and whether to start, continue, or do nothing."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from spectral_fusion.concept import Library, read_info
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.train.checkpoint import FILE_NAME, read_header
from spectral_fusion.train.config import TrainConfig

FOLDER = "training"
LOCKS = ".locks"


@dataclass(frozen=True)
class Run:
    """One training of a concept of a library.

    facts: what the trained concept depends on, as JSON values; kept in checkpoints and in the concept's file.
    force: whether a concept or a stopped training of the same name may be replaced.
    """

    library: Library
    name: str
    facts: dict[str, Any]
    force: bool = False

    @property
    def folder(self) -> Path:
        return self.library.folder(self.name) / FOLDER

    @property
    def checkpoint(self) -> Path:
        return self.folder / FILE_NAME

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the name: the system lets go of it when the process ends, however it ends.

        Raises:
            InputError: another process trains a concept of this name.
        """
        path = self.library.root / LOCKS / f"{self.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=0):
                yield
        except Timeout as error:
            raise InputError(f"another process trains {self.name!r}; wait for it or give another --name") from error

    def is_finished(self) -> bool:
        """Whether the library already holds what this training would give."""
        path = self.library.path(self.name)
        return path.is_file() and read_info(path).training == self.facts

    def check(self, *, resume: bool) -> bool:
        """Whether there is a checkpoint to continue from.

        Raises:
            InputError: a stopped training or a finished concept of this name would be lost, or the checkpoint is of
                other settings or pictures.
        """
        stopped = read_header(self.checkpoint) if self.checkpoint.is_file() else None
        if stopped and resume:
            self._refuse_changes(stopped["facts"]["run"])
        elif stopped and not self.force:
            raise InputError(
                f"a training of {self.name!r} stopped after step {stopped['step']}; add --resume to go on with it, "
                "or --force to start again"
            )
        elif self.library.path(self.name).exists() and not self.force:
            raise InputError(
                f"the library has a concept {self.name!r} already; give another --name, or --force to replace it"
            )
        return bool(stopped and resume)

    def _refuse_changes(self, then: dict[str, Any]) -> None:
        changes = [
            f"{key} was {then.get(key)!r}, is {now!r}" for key, now in self.facts.items() if then.get(key) != now
        ]
        if changes:
            raise InputError(
                f"the stopped training of {self.name!r} differs: {'; '.join(changes)}. "
                "Resume with its own settings and pictures, or start again with --force"
            )


def run_facts(config: TrainConfig, folder: ImageFolder, neighbours: Mapping[str, str]) -> dict[str, Any]:
    """What a training's result depends on, as JSON values.

    Args:
        neighbours: a hash of each concept that it is trained beside, by name.
    """
    return config.result_settings() | {
        "neighbours": dict(neighbours),
        "pictures": len(folder.photos),
        "pictures_digest": images_digest(folder),
    }


def neighbours_before(library: Library, config: TrainConfig) -> tuple[str, ...] | None:
    """Beside which concepts a stopped or finished training was done; None where none asked for the same ones."""
    checkpoint, finished = library.folder(config.name) / FOLDER / FILE_NAME, library.path(config.name)
    if checkpoint.is_file():
        facts = read_header(checkpoint)["facts"]["run"]
    elif finished.is_file():
        facts = read_info(finished).training
    else:
        return None
    return tuple(facts["neighbours"]) if facts.get("beside") == list(config.beside) else None


def images_digest(folder: ImageFolder) -> str:
    """A hash of what is learned from: names, contents, captions and masks of the pictures, in order."""
    digest = hashlib.sha256()
    for photo in folder.photos:
        digest.update(json.dumps([photo.path.name, photo.caption, photo.repeats]).encode())
        for file in filter(None, (photo.path, photo.mask)):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def stopped_settings(library: Library, name: str) -> dict[str, Any] | None:
    """All settings of the stopped training of `name`, as `TrainConfig` takes them; None where there is none."""
    path = library.folder(name) / FOLDER / FILE_NAME
    if not path.is_file():
        return None
    chosen = read_header(path)["facts"]["config"]
    if "band_order" in chosen:  # as it was called before
        chosen["band_side"] = chosen.pop("band_order")
    return chosen
