"""Starting a training from what a visitor gave: photos, captions, a name, a class, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_type_hints

from spectral_fusion.errors import InputError
from spectral_fusion.training import ResolvedConfig
from spectral_fusion.training.config import settings as train_settings
from spectral_fusion_app.paths import inside
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.train.photos import Photos
from spectral_fusion_app.train.trainings import Training, Trainings, check_bounds

ADVANCED = {  # fields of ResolvedConfig, and what the page sets where that differs from their default
    "trigger": None,
    "steps": None,
    "rank": None,
    "mode": "additive",
    "batch_size": None,
    "resolution": None,
    "learning_rate_unet": None,
    "learning_rate_text_encoder": None,
    "learning_rate_embedding": None,
    "seed": 0,
    "flip": False,
    "caption_dropout": None,
    "distillation_prompts": None,
    "validate_every": 0,
    "sample_every": 50,
}


@dataclass(frozen=True)
class Given:
    """What a visitor gave. `files`: uploaded; else `folder`: on this server. `captions`: by the photo's key."""

    name: str
    class_word: str
    preset: str = "balanced"
    files: Sequence[str] = ()
    folder: str = ""
    captions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    replace: bool = False


class Begin:
    """Checks what was given, and starts."""

    def __init__(self, studio: Studio, settings: AppSettings, trainings: Trainings) -> None:
        self.studio, self.settings, self.trainings = studio, settings, trainings

    def start(self, given: Given) -> Training:
        """Start a training, or put it in line. Raises InputError."""
        values: dict[str, Any] = {
            "name": given.name.strip(),
            "class_word": given.class_word.strip(),
            "preset": given.preset.strip(),
            **given.settings,
        }
        if unknown := values.keys() - train_settings().keys():
            raise InputError(f"there is no setting {sorted(unknown)[0][:100]!r}; `train --help` lists them")
        check_bounds(values, self.settings.limits.training)
        values["base"] = self.studio.check_base(values.get("base") or self.studio.state.base)
        for name in ("class_images", "validation_images"):
            if values.get(name):
                values[name] = str(inside(self.settings.folders, values[name]))
        self.studio.loras.refuse_name(str(values["name"]))
        with self.photos(given.files, given.folder) as photos:
            photos.check(values["class_word"])  # what cannot be used is an error now, not later in a log
            photos.write_captions(given.captions)
            training = self.trainings.start(photos.folder, values, force=given.replace)
        self.studio.park()
        return training

    @contextmanager
    def photos(self, files: Sequence[str], folder: str) -> Iterator[Photos]:
        """Copies of what was dropped, else of the server's folder."""
        with TemporaryDirectory() as copies:
            if files or not folder.strip():
                yield Photos.upload(Path(copies), files, self.settings.limits)
            else:
                yield Photos.from_server(Path(copies), folder, self.settings.folders, self.settings.limits)


def described_setting(name: str, value: Any) -> dict[str, Any]:
    """One field of `ResolvedConfig` for the page: its kind, help text and value."""
    kind = get_type_hints(ResolvedConfig)[name]
    choices = list(get_args(kind))
    sort = "check" if kind is bool else "choice" if choices else "number" if kind in (int, float) else "text"
    label = name.replace("_", " ").capitalize().replace("unet", "UNet")
    return {
        "name": name,
        "label": label,
        "help": train_settings()[name].help,
        "kind": sort,
        "choices": choices,
        "value": value,
    }


def parse_setting(name: str, value: Any) -> Any:
    """What a field of the page holds as the setting's type; None where it is empty.

    Raises:
        InputError: it is no number and should be one.
    """
    kind = get_type_hints(ResolvedConfig)[name]
    if value in (None, ""):
        return None
    if kind not in (int, float):
        return value
    try:
        return kind(value)
    except (ValueError, OverflowError) as error:
        whole = "a whole number" if kind is int else "a number"
        raise InputError(f"{name} is {str(value)[:40]!r}; give {whole}, or leave it empty") from error


def described(training: Training) -> dict[str, Any]:
    """A training as programs see it."""
    state = training.state()
    return {
        "id": training.id,
        "name": training.name,
        "state": state.kind,
        "step": state.step,
        "steps": state.steps,
        "loss": state.points[-1].loss if state.points else None,
        "seconds_left": state.seconds_left,
        "error": state.error,
    }
