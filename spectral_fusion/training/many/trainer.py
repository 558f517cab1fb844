"""What a worker does: it holds a base and trains one task after another on it."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from spectral_fusion.base.attach import attach, detach
from spectral_fusion.base.interface import DTYPES, Base
from spectral_fusion.base.load import open_base, own_dtype
from spectral_fusion.concept import Concept
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.concept.metadata import library_versions
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band, Triplets, decompose
from spectral_fusion.training.checkpoint import Checkpoint
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.distillation import Predictions
from spectral_fusion.training.folder import images_digest
from spectral_fusion.training.loop import Loop, Progress
from spectral_fusion.training.many.task import (
    Blob,
    Event,
    Failed,
    Hello,
    Kept,
    Setup,
    Stepped,
    Stopped,
    Task,
    Trained,
    unpacked,
)
from spectral_fusion.training.model import target_layers
from spectral_fusion.training.processes import processes
from spectral_fusion.training.single import TrainingContext, train
from spectral_fusion.training.watch import preview

Tell = Callable[[Event], None]


class Stop(Exception):
    """The training is to end between two steps."""


class Trainer:
    """Trains tasks on one base, opened when it is first needed."""

    def __init__(self, setup: Setup):
        torch.set_num_threads(setup.threads)
        self.setup = setup
        self.base: Base | None = None
        self.predictions = Predictions()

    def hello(self) -> Hello:
        """What this worker is."""
        base = self._open()
        return Hello(f"{socket.gethostname()} ({base.device})", library_versions(), base.fingerprint)

    def run(self, task: Task, tell: Tell, asked_to_stop: Callable[[], bool] = lambda: False) -> None:
        """Train a task and tell how it goes; the last event is `Trained`, `Failed` or `Stopped`."""
        try:
            tell(self._train(task, tell, asked_to_stop))
        except Stop:
            tell(Stopped())
        except InputError as error:
            tell(Failed(str(error), final=True))
        except Exception as error:  # another worker may have more memory, or a sound disk
            self.base = None  # as it was left, it may carry an adapter
            tell(Failed(f"{type(error).__name__}: {error}", final=False))

    def _train(self, task: Task, tell: Tell, asked_to_stop: Callable[[], bool]) -> Trained:
        config = task.config
        keeper = _Keeper(task, tell, asked_to_stop)
        base = self._open()
        band = Band(*task.band)  # type: ignore[arg-type]  # checked by Band
        bases = self._decompose(base, config, band)
        with ExitStack() as files:
            place = files.enter_context(unpacked(task.images, folder=True))
            images = ImageFolder.scan(place, background=config.background, class_word=config.class_word)
            if images_digest(images) != task.facts["pictures_digest"]:
                raise InputError(f"the pictures of {task.name!r} are others than at the start; leave them, start again")
            measured = None
            if task.validation is not None:
                measured = ImageFolder.scan(
                    files.enter_context(unpacked(task.validation, folder=True)), background=config.background
                )
            context = TrainingContext(
                [_load(other) for other in task.others],
                predictions=self.predictions,
                start=None if task.start is None else _load(task.start),
                validation=measured,
            )
            concept = train(
                base,
                images,
                config,
                band,
                context,
                bases=bases,
                facts=task.facts,
                checkpoint=None if task.checkpoint is None else _load_checkpoint(task.checkpoint),
                on_step=keeper,
            )
        drawn = _preview(base, concept, config) if task.last else None
        return Trained(_content(lambda path: concept.save(path, dtype=torch.float32)), drawn)

    def _open(self) -> Base:
        """The base in full precision. One that was cast for a task is opened again: bands are those of its files."""
        if self.base is None:
            name, kind = self.setup.base, self.setup.prediction_type
            if self.setup.low_memory:
                self.base = open_base(name, prediction_type=kind, device="cpu", dtype=own_dtype(name))
            else:
                self.base = open_base(name, prediction_type=kind, device=processes().device)
        return self.base

    def _decompose(self, base: Base, config: ResolvedConfig, band: Band) -> dict[str, Triplets]:
        """The band of each layer, of the weights before they are cast."""
        bases = decompose({name: layer.weight for name, layer in target_layers(base, config).items()}, band)
        if config.precision != "fp32" or self.setup.low_memory:
            self.base = None
            base.cast(DTYPES[config.precision])
            if self.setup.low_memory:
                base.place(processes().device, [part for part in base.parts if config.learns(part)])
        return bases


class _Keeper:
    """Tells of each step, and sends checkpoints as often as the settings say, and before a stop."""

    def __init__(self, task: Task, tell: Tell, asked_to_stop: Callable[[], bool]):
        self.task, self.tell, self.asked_to_stop = task, tell, asked_to_stop

    def __call__(self, loop: Loop, progress: Progress) -> None:
        samples = None if progress.samples is None else _png(progress.samples)
        self.tell(Stepped(progress.step, progress.steps, progress.loss, samples))
        stopping = self.asked_to_stop()
        if not loop.is_over and (stopping or loop.step % loop.config.checkpoint_every == 0):
            self.tell(Kept(_content(self._checkpoint(loop).save)))
        if stopping and not loop.is_over:
            raise Stop

    def _checkpoint(self, loop: Loop) -> Checkpoint:
        tensors, rest = loop.state()
        facts = {
            "run": self.task.facts,
            "config": asdict(loop.config),
            "band": self.task.band[0],
            "force": False,
            "round": self.task.round,
            "loop": rest,
        }
        return Checkpoint(loop.step, tensors, facts)


def _load(blob: Blob) -> Concept:
    with unpacked(blob) as path:
        return Concept.load(path)


def _load_checkpoint(blob: Blob) -> Checkpoint:
    with unpacked(blob) as path:
        return Checkpoint.load(path)


def _content(save: Callable[[Path], object]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "content.safetensors"
        save(path)
        return path.read_bytes()


def _preview(base: Base, concept: Concept, config: ResolvedConfig) -> bytes:
    attach(base, concept)
    try:
        return _png(preview(base, config))
    finally:
        detach(base, concept)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()
