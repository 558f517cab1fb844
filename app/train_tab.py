"""The Train tab: pictures, a name, how much time to take; and how the training goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from json import dumps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_type_hints

import gradio as gr

from spectral_fusion.base.presets import Preset
from spectral_fusion.errors import InputError
from spectral_fusion.training import ResolvedConfig
from spectral_fusion.training.config import settings as train_settings
from spectral_fusion_app.errors import answered, shown
from spectral_fusion_app.links import Links
from spectral_fusion_app.paths import inside
from spectral_fusion_app.photos import Card, Photos
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.training_panel import TrainingPanel
from spectral_fusion_app.trainings import Training, Trainings, check_bounds

ADVANCED = {  # fields of TrainConfig, and what the page sets where that differs from their default
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
    "validate_every": 0,
    "sample_every": 50,
}


def build(studio: Studio, settings: AppSettings, links: Links) -> None:
    """Draw the tab and connect it."""
    TrainTab(studio, settings, links).connect()


class TrainTab:
    """The widgets as attributes, the listeners as methods."""

    def __init__(self, studio: Studio, settings: AppSettings, links: Links) -> None:
        self.studio, self.settings, self.links = studio, settings, links
        self.trainings = Trainings(settings.trainings, settings.library)
        self.captions = gr.JSON({}, visible="hidden", label="Captions by file name")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=6, min_width=320):
                self._draw_pictures()
                self._draw_settings()
            with gr.Column(scale=5, min_width=320):
                self.panel = TrainingPanel(self.trainings, links)

    def _draw_pictures(self) -> None:
        self.files = gr.File(label="Pictures of one subject", file_count="multiple", height=150, elem_id="train-files")
        with gr.Accordion("Or a folder on this server", open=False):
            self.folder = gr.Textbox("", label="Folder", elem_id="train-folder", placeholder="concepts/rex/images")
        triggers = [self.files.change, self.folder.submit, self.folder.blur]

        @gr.render(inputs=[self.files, self.folder], triggers=triggers, queue=False, show_progress="hidden")
        def cards(files: list[str] | None, folder: str) -> None:
            self._draw_cards(files, folder)

    def _draw_cards(self, files: list[str] | None, folder: str) -> None:
        if not files and not folder.strip():
            return
        try:
            with self._photos(files, folder or "") as photos:
                found, warnings = photos.cards(max(self.studio.size))
        except InputError as error:
            gr.HTML(f'<p class="error" role="alert">{escape(str(error))}</p>')
            return
        with gr.Row(elem_classes="photos"):
            for card in found:
                self._draw_card(card)
        if warnings:
            gr.HTML("".join(f'<p class="warning">{escape(warning)}</p>' for warning in warnings))

    def _draw_card(self, card: Card) -> None:
        with gr.Column(min_width=140, scale=1, elem_classes="photo"):
            gr.Image(card.thumbnail, show_label=False, container=False, interactive=False, buttons=[], label=card.name)
            caption = gr.Textbox(
                card.caption, label=card.name, placeholder="caption: made from the class", max_lines=3, lines=1
            )
            # In the browser: a click on Train right after the last letter must not be faster than a request.
            change = f"(all, text) => ({{...all, {dumps(card.key)}: text}})"
            caption.change(None, [self.captions, caption], self.captions, js=change)
            if card.warnings:
                gr.HTML("".join(f'<p class="warning">{escape(warning)}</p>' for warning in card.warnings))

    def _draw_settings(self) -> None:
        with gr.Row():
            self.name = gr.Textbox(
                "", label="Name", placeholder="rex", max_length=64, elem_id="train-name", min_width=120
            )
            self.class_word = gr.Textbox(
                "", label="Class", placeholder="dog", max_length=64, elem_id="train-class", min_width=120
            )
        self.preset = gr.Radio(list(get_args(Preset)), value="balanced", label="Preset", elem_id="train-preset")
        with gr.Accordion("Advanced", open=False, elem_id="train-advanced"), gr.Row(elem_classes="grid"):
            self.advanced = [draw_setting(name, value) for name, value in ADVANCED.items()]
            self.replace = gr.Checkbox(label="Replace a concept of this name", elem_id="train-replace")
        self.go = gr.Button("Train", variant="primary", elem_id="start-training")

    def connect(self) -> None:
        """Listen, and offer the same to programs."""
        self.files.change(None, None, self.captions, js="() => ({})")
        subject = [self.files, self.folder, self.captions, self.name, self.class_word, self.preset, self.replace]
        self.go.click(shown(self._start), [*subject, *self.advanced], self.panel.outputs, **QUIET)
        self.panel.connect()
        more, answer = gr.JSON({}, visible=False), gr.JSON(visible=False)
        gr.Button(visible=False).click(answered(self.train), [*subject, more], answer, api_name="train")
        for function in (self.list_trainings, self.cancel_training, self.resume_training):
            gr.api(answered(function), api_name=function.__name__)

    def train(
        self,
        images: list[str] | None,
        folder: str,
        captions: dict[str, str] | None,
        name: str,
        class_word: str,
        preset: str,
        replace: bool,
        settings: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Start a training on uploaded pictures or on a folder of the server; `settings` are flags of `train`."""
        subject = {"name": name, "class_word": class_word, "preset": preset}
        return described(self._begin(images, folder, captions, subject, settings or {}, replace))

    def list_trainings(self) -> list[dict[str, Any]]:
        """All trainings, the newest first."""
        return [described(training) for training in self.trainings.list()]

    def cancel_training(self, id: str) -> dict[str, Any]:
        """Stop a training after its step; it can be resumed."""
        training = self.trainings.find(id)
        training.cancel()
        return described(training)

    def resume_training(self, id: str) -> dict[str, Any]:
        """Go on with a training that was stopped."""
        return described(self.trainings.resume(id))

    def _start(
        self,
        files: list[str] | None,
        folder: str,
        captions: dict[str, str] | None,
        name: str,
        class_word: str,
        preset: str,
        replace: bool,
        *advanced: Any,
    ) -> tuple[Any, ...]:
        settings = {name: parse_setting(name, value) for name, value in zip(ADVANCED, advanced, strict=True)}
        subject = {"name": name, "class_word": class_word, "preset": preset}
        return self.panel.show(self._begin(files, folder, captions, subject, settings, replace).id)

    def _begin(
        self,
        files: list[str] | None,
        folder: str | None,
        captions: dict[str, str] | None,
        subject: dict[str, str],
        settings: dict[str, Any],
        replace: bool,
    ) -> Training:
        given: dict[str, Any] = {name: value.strip() for name, value in subject.items()} | settings
        if unknown := given.keys() - train_settings().keys():
            raise InputError(f"there is no setting {sorted(unknown)[0][:100]!r}; `train --help` lists them")
        check_bounds(given, self.settings.limits.training)
        given["base"] = self.studio.check_base(given.get("base") or self.studio.state.base)
        if given.get("class_images"):
            given["class_images"] = str(inside(self.settings.folders, given["class_images"]))
        self.studio.park()
        with self._photos(files, folder or "") as photos:
            photos.cards(max(self.studio.size))  # a folder that cannot be used is an error now, not later in a log
            photos.write_captions(captions or {})
            return self.trainings.start(photos.folder, given, force=bool(replace))

    @contextmanager
    def _photos(self, files: Sequence[str] | None, folder: str) -> Iterator[Photos]:
        """Copies of what was dropped, else of the server's folder."""
        with TemporaryDirectory() as copies:
            if files or not folder.strip():
                yield Photos.upload(Path(copies), files or [], self.settings.limits)
            else:
                yield Photos.from_server(Path(copies), folder, self.settings.folders, self.settings.limits)


def draw_setting(name: str, value: Any) -> gr.Component:
    """A widget for one field of `TrainConfig`, of the field's type and with its help text."""
    kind, about = get_type_hints(ResolvedConfig)[name], train_settings()[name]
    common = {"label": name.replace("_", " ").capitalize(), "info": about.help, "min_width": 200}
    common["elem_id"] = f"train-{name.replace('_', '-')}"
    if kind is bool:
        return gr.Checkbox(value, **common)
    if get_args(kind):
        return gr.Dropdown(list(get_args(kind)), value=value, **common)
    if kind is str:
        return gr.Textbox(value or "", **common)
    return gr.Textbox("" if value is None else str(value), placeholder="auto", **common)


def parse_setting(name: str, value: Any) -> Any:
    """What a widget of `draw_setting` holds as the field's type; None where it is empty.

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
    except ValueError as error:
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
