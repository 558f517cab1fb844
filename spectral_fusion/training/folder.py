"""The folder of one training: its checkpoint, its lock, and whether to start, continue, or do nothing."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectral_fusion.concept import Concept, Library, read_info
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.concept.locks import held, training_lock
from spectral_fusion.errors import InputError
from spectral_fusion.training.checkpoint import FILE_NAME, read_header
from spectral_fusion.training.config import RENAMED, ResolvedConfig, TrainConfig

FOLDER = "training"
MOST = 16  # concepts that "all" means: they share the distilled prompts, and with more it has not been tried


@dataclass(frozen=True)
class TrainingFolder:
    """Where a library keeps the training of one concept.

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
        busy = f"another process trains {self.name!r}; wait for it or give another --name"
        with held(training_lock(self.library.root, self.name), seconds=0, busy=busy):
            yield

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


def training_facts(config: ResolvedConfig, images: ImageFolder, others: Mapping[str, str]) -> dict[str, Any]:
    """What a training's result depends on, as JSON values.

    Args:
        others: a hash of each concept that it is trained beside, by name.
    """
    return config.result_settings() | {
        "context": dict(others),
        "pictures": len(images.photos),
        "pictures_digest": images_digest(images),
    }


def context_before(library: Library, config: TrainConfig) -> tuple[str, ...] | None:
    """Beside which concepts a stopped or finished training was done; None where none asked for the same ones."""
    checkpoint, finished = library.folder(config.name) / FOLDER / FILE_NAME, library.path(config.name)
    if checkpoint.is_file():
        facts = read_header(checkpoint)["facts"]["run"]
    elif finished.is_file():
        facts = read_info(finished).training
    else:
        return None
    return tuple(facts.get("context", ())) if facts.get("with_concepts") == list(config.with_concepts) else None


def choose_context(library: Library, config: TrainConfig, base: str) -> list[Concept]:
    """The concepts that `config.with_concepts` asks for: by name, none, or all of the library trained on this base.

    All means at most `MOST`: those of the own class first, then those of the lowest bands.

    Args:
        base: fingerprint of the base.

    Raises:
        InputError: a name is not in the library, is the concept's own, or is of another base.
    """
    if config.with_concepts in ((), ("none",)):
        return []
    if config.with_concepts == ("all",):
        others = [info for info in library.list() if info.base == base and info.name != config.name]
        others.sort(key=lambda info: (info.class_word != config.class_word, info.band.index, info.name))
        return [library.get(info.name) for info in others[:MOST]]
    return [_named(library, config, name, base) for name in dict.fromkeys(config.with_concepts)]


def _named(library: Library, config: TrainConfig, name: str, base: str) -> Concept:
    if name == config.name:
        raise InputError(f"{name!r} cannot be trained beside itself; leave it out of --with-concepts")
    concept = library.get(name)
    if concept.base != base:
        raise InputError(
            f"{name!r} was trained on base {concept.base} {concept.base_name}, this training is on {base}; "
            "leave it out of --with-concepts"
        )
    return concept


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """A hash of each file, by name: what a training beside these concepts depends on."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items()}


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
    return {RENAMED.get(name, name): value for name, value in chosen.items()}
