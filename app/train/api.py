"""Training in the HTTP API."""

from __future__ import annotations

from typing import Any

import gradio as gr

from spectral_fusion_app.errors import answered
from spectral_fusion_app.train.begin import Begin, Given, described
from spectral_fusion_app.train.trainings import Trainings


def build(begin: Begin, trainings: Trainings) -> None:
    """Add the endpoints to the page that is being made."""
    endpoints = Endpoints(begin, trainings)
    # Hidden widgets: so Gradio checks that the pictures are uploads, and names the parameters.
    given = [
        gr.File(file_count="multiple", visible=False, label="Pictures"),
        gr.Textbox("", visible=False, label="Folder of the server, instead of pictures"),
        gr.JSON({}, visible=False, label="Captions by file name"),
        gr.Textbox("", visible=False, label="Name"),
        gr.Textbox("", visible=False, label="Class, such as dog"),
        gr.Textbox("balanced", visible=False, label="quick, balanced or careful"),
        gr.Checkbox(visible=False, label="Replace a concept of this name"),
        gr.JSON({}, visible=False, label="Settings, as flags of train are named"),
    ]
    gr.Button(visible=False).click(
        answered(endpoints.train), given, gr.JSON(visible=False, label="Training"), api_name="train"
    )
    for function in (endpoints.list_trainings, endpoints.cancel_training, endpoints.resume_training):
        gr.api(answered(function), api_name=function.__name__)
    gr.api(answered(endpoints.remove_training), api_name="remove_training")


class Endpoints:
    """The functions; their docstrings are what the page of the API says."""

    def __init__(self, begin: Begin, trainings: Trainings) -> None:
        self.begin, self.trainings = begin, trainings

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
        """Start a training on uploaded pictures or on a folder of the server; it waits where another one runs."""
        given = Given(name, class_word, preset, images or (), folder, captions or {}, settings or {}, replace)
        return described(self.begin.start(given))

    def list_trainings(self) -> list[dict[str, Any]]:
        """All trainings, the newest first."""
        return [described(training) for training in self.trainings.list()]

    def cancel_training(self, id: str) -> dict[str, Any]:
        """Stop a training after its step; it can be resumed. One that waits leaves the line."""
        training = self.trainings.find(id)
        training.cancel()
        return described(training)

    def resume_training(self, id: str) -> dict[str, Any]:
        """Go on with a training that was stopped."""
        return described(self.trainings.resume(id))

    def remove_training(self, id: str) -> str:
        """Take a training that is over from the list; its concept stays in the library."""
        self.trainings.remove(id)
        return id
