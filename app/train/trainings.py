"""Trainings: each a process of its own with a folder of its own, shown from what is on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from spectral_fusion.atomic import atomic_folder
from spectral_fusion.errors import InputError
from spectral_fusion.names import same
from spectral_fusion.training import TrainConfig
from spectral_fusion_app.processes import STOPPING, Runs, VerbProcess
from spectral_fusion_app.records import read_record, write_record
from spectral_fusion_app.train.progress import ACTIVE, TrainingState, read_points

IMAGES = "images"
SETTINGS = "settings.toml"
RECORD = "training.json"
UNREADABLE = "unreadable record"
WAITING = "waiting"  # a file of a training that is in line; it says how it is to be started
RESUME = "resume"
BIN = ".trash"


class Training:
    """One training, running or not. `id` is the name of its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.process = VerbProcess(folder)
        record = read_record(folder / RECORD) or {}
        self.readable = isinstance(record.get("name"), str) and isinstance(record.get("library"), str)
        self.name = str(record["name"]) if self.readable else UNREADABLE
        self.library = Path(record["library"]) if self.readable else folder
        self.force = record.get("force") is True

    @property
    def began(self) -> datetime:
        """When it was first started, in local time."""
        try:
            return datetime.strptime(self.id[: len("20261121-140500")], "%Y%m%d-%H%M%S")
        except ValueError:  # a folder that was named by hand
            return datetime.fromtimestamp(self.folder.stat().st_mtime)

    @property
    def images(self) -> Path:
        """Its own copy of the pictures."""
        return self.folder / IMAGES

    def state(self) -> TrainingState:
        """Where it stands now."""
        if not self.readable:
            return TrainingState("failed", error=f"its record {RECORD} cannot be read; remove the training")
        if self.waits:
            return TrainingState("waiting")
        process = self.process.state()
        points, steps = read_points(process.entries)
        if process.kind == "running":
            return TrainingState("training" if points else "preparing", points, steps)
        return TrainingState(process.kind, points, steps, process.error)

    def grids(self) -> list[Path]:
        """Its sample grids, the first steps first."""
        folder = self.library / self.name / "training" / "samples"
        steps = [point.step for point in self.state().points if point.samples]
        return [path for step in steps if (path := folder / f"step-{step:06d}.png").is_file()]

    @property
    def waits(self) -> bool:
        """Whether it is in line behind another one."""
        return (self.folder / WAITING).exists()

    @property
    def resumable(self) -> bool:
        """Whether it is over before its end, and did some steps, or was stopped: else it would fail again as it did."""
        state = self.state()
        return self.readable and (state.kind == "stopped" or (state.kind == "failed" and state.step > 0))

    def cancel(self) -> None:
        """Stop after this step, with a checkpoint; a second time at once. Nothing happens where it has ended."""
        if self.waits:
            (self.folder / STOPPING).touch()
            (self.folder / WAITING).unlink(missing_ok=True)
            return
        self.process.stop()

    def run(self, *, resume: bool) -> None:
        """Start the process; see `Trainings` for who may. Raises InputError where its record cannot be read."""
        if not self.readable:
            raise InputError(f"the record of training {self.id!r} cannot be read; start a new one")
        arguments = ["train", str(self.images), "--config", str(self.folder / SETTINGS), "--no-logs"]
        arguments += ["--library", str(self.library)]
        arguments += ["--force"] if self.force else []
        self.process.start([*arguments, "--resume"] if resume else arguments)


class Trainings(Runs[Training]):
    """All trainings of one server."""

    what, record, make = "training", RECORD, Training
    longest = 8  # that may wait
    hours = 24.0  # that one may take

    def start(self, images: Path, settings: Mapping[str, Any], *, force: bool = False) -> Training:
        """Start a training on a copy of a folder of pictures; it waits where another one runs.

        Args:
            settings: fields of `TrainConfig`; None is left to the base.
            force: replace the library's concept, or the stopped training, of this name.

        Raises:
            InputError: a setting is out of range, the library has a concept or a stopped training of this name,
                another concept has its trigger, or too many trainings wait.
        """
        from spectral_fusion.concept import Library
        from spectral_fusion.training.folder import stopped_settings

        given = {key: value for key, value in settings.items() if value is not None}
        config = TrainConfig(**given)
        if Library(self.library).path(config.name).exists() and not force:
            raise InputError(f"the library has a concept {config.name!r} already; give another name, or replace it")
        if stopped_settings(Library(self.library), config.name) and not force:
            raise InputError(f"a training of {config.name!r} was stopped; resume it, give another name, or replace it")
        self._refuse_trigger(config)
        with self._lock:
            self._refuse_too_many()
            folder = self.root / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{config.name}"
            with atomic_folder(folder) as part:
                shutil.copytree(images, part / IMAGES)
                (part / SETTINGS).write_text(to_toml(given), encoding="utf-8")
                write_record(part / RECORD, {"name": config.name, "library": str(self.library), "force": force})
            try:
                training = Training(folder)
                self._run_or_wait(training, resume=False)
            except BaseException:  # a full disk, for one
                shutil.rmtree(folder, ignore_errors=True)
                raise
            return training

    def resume(self, id: str) -> Training:
        """Go on with a training that was stopped or failed, once no other runs. Raises InputError where it runs."""
        training = self.find(id)
        with self._lock:
            self._refuse_too_many()
            if training.waits or training.process.running:
                raise InputError(f"{training.name!r} is being trained already; wait until it is done, or cancel it")
            if training.state().kind == "finished":
                raise InputError(f"the training of {training.name!r} is finished; its concept is in the library")
            self._run_or_wait(training, resume=True)
            return training

    def remove(self, id: str) -> None:
        """Move a training that is over into the bin; its concept stays. Raises InputError where it runs or waits."""
        training = self.find(id)
        if training.state().kind in ACTIVE:
            raise InputError(f"{training.name!r} is being trained; stop it first")
        (self.root / BIN).mkdir(exist_ok=True)
        training.folder.rename(self.root / BIN / training.id)

    def advance(self) -> None:
        """Start the training that has waited longest, once none runs; stop one that takes too long."""
        waiting = sorted(self.root.glob(f"[0-9]*/{WAITING}"), key=lambda path: path.stat().st_mtime_ns)
        with self._lock:
            running = self.running()
            if running is not None:
                if running.process.seconds > self.hours * 3600 and not (running.folder / STOPPING).exists():
                    running.process.stop()
            elif waiting:
                training = Training(waiting[0].parent)
                resume = waiting[0].read_bytes() == RESUME.encode()
                waiting[0].unlink(missing_ok=True)
                training.run(resume=resume)

    def version(self) -> str:
        """Differs as soon as a training came, went, began or ended."""
        return str(hash(tuple((one.id, one.waits, one.process.running) for one in self.list())))

    def photos(self, name: str) -> Path | None:
        """The pictures that the concept of this name was trained on here, the newest training first."""
        return next((training.images for training in self.list() if training.name == name), None)

    def _run_or_wait(self, training: Training, *, resume: bool) -> None:
        (training.folder / STOPPING).unlink(missing_ok=True)
        others = [other for other in self.list() if other.id != training.id]
        if not any(other.waits or other.process.running for other in others):
            training.run(resume=resume)
        else:
            (training.folder / WAITING).write_text(RESUME if resume else "", encoding="utf-8")

    def _refuse_too_many(self) -> None:
        if sum(training.waits for training in self.list()) >= self.longest:
            raise InputError(f"{self.longest} trainings are waiting already; try again later")

    def _refuse_trigger(self, config: TrainConfig) -> None:
        """The training itself would notice too, minutes later."""
        from spectral_fusion.concept import Library

        trigger = config.trigger or f"<{config.name}>"
        for info in Library(self.library).list():
            if not same(info.name, config.name) and same(info.trigger, trigger):
                raise InputError(f"trigger {trigger} belongs to concept {info.name!r}; choose another name or trigger")


def check_bounds(settings: Mapping[str, Any], bounds: Mapping[str, float]) -> None:
    """Raises InputError: a setting would take more time or memory than this page allows."""
    for name, most in bounds.items():
        value = settings.get(name)
        if isinstance(value, (int, float)) and not value <= most:
            raise InputError(f"{name} is {value}, more than the {most:g} that this page allows; ask for less")


def to_toml(settings: Mapping[str, Any]) -> str:
    """Settings as a flat TOML file: strings, numbers, truth values and lists are written there as in JSON."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(lines).replace("\x7f", "\\u007f") + "\n"
