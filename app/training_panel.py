"""The trainings: the one that runs, as it goes, and those before it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from spectral_fusion_app.errors import shown
from spectral_fusion_app.links import Links
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.training_html import loss_svg, state_html
from spectral_fusion_app.trainings import ACTIVE, Training, Trainings

TICK_SECONDS = 1.0
Seen = tuple[str, str, int, int]
"""Of the training that a page shows: its id, kind, step and number of grids."""


class TrainingPanel:
    """What a page shows of the trainings; all of it is read from disk, so a reload loses nothing."""

    def __init__(self, trainings: Trainings, links: Links) -> None:
        self.trainings, self.links = trainings, links
        self.seen = gr.State(None)
        self.timer = gr.Timer(TICK_SECONDS, active=False)
        self.chosen = gr.Dropdown([], label="Training", elem_id="training", visible=False)
        self.state = gr.HTML(elem_id="training-state")
        with gr.Row(elem_classes="tight"):
            self.cancel = gr.Button("Cancel", visible=False, min_width=80, elem_id="cancel-training")
            self.resume = gr.Button("Resume", visible=False, min_width=80, elem_id="resume-training")
            self.open = gr.Button(
                "Open in Generate", variant="primary", visible=False, min_width=80, elem_id="open-trained"
            )
        self.curve = gr.HTML(elem_id="loss-curve")
        self.grids = gr.Gallery(
            label="Samples on the way",
            visible=False,
            columns=1,
            height="auto",
            object_fit="contain",
            interactive=False,
            buttons=["fullscreen"],
            elem_id="training-samples",
        )

    @property
    def outputs(self) -> list[Any]:
        """What `show` returns the values of."""
        widgets = [self.chosen, self.state, self.cancel, self.resume, self.open, self.curve, self.grids]
        return [*widgets, self.seen, self.timer]

    def connect(self) -> None:
        """Listen."""
        gr.on(None, shown(self.show), None, self.outputs, **QUIET)  # when the page is loaded
        self.chosen.input(shown(self.show), self.chosen, self.outputs, **QUIET)
        follow = [*self.outputs, self.links.library]
        self.timer.tick(shown(self._follow), [self.chosen, self.seen], follow, **QUIET)
        self.cancel.click(shown(self._cancel), self.chosen, self.outputs, **QUIET)
        self.resume.click(shown(self._resume), self.chosen, self.outputs, **QUIET)
        self.open.click(shown(self._open), self.chosen, [self.links.open_concept, self.links.tabs], **QUIET)

    def show(self, id: str | None = None) -> tuple[Any, ...]:
        """Everything of one training; of the newest where none is named."""
        found = self.trainings.list()
        if not found:
            return (gr.skip(),) * len(self.outputs)
        training = next((training for training in found if training.id == id), found[0])
        state, grids = training.state(), training.grids()
        active = state.kind in ACTIVE
        pictures = [(Image.open(path), f"step {int(path.stem.rpartition('-')[2])}") for path in grids[::-1]]
        return (
            gr.Dropdown(choices=[(label(other), other.id) for other in found], value=training.id, visible=True),
            state_html(training.name, state),
            gr.Button(visible=active),
            gr.Button(visible=state.kind in ("stopped", "failed")),
            gr.Button(visible=state.kind == "finished"),
            loss_svg(state.points),
            gr.Gallery(value=pictures, visible=bool(pictures)),
            (training.id, state.kind, state.step, len(grids)),
            gr.Timer(active=active),
        )

    def _follow(self, id: str, seen: Seen | None) -> tuple[Any, ...]:
        """What is new since the last tick."""
        training = self.trainings.find(id)
        state = training.state()
        now = (training.id, state.kind, state.step, len(training.grids()))
        if now == seen:
            return (gr.skip(),) * (len(self.outputs) + 1)
        trained = state.kind == "finished" and seen is not None and seen[1] in ACTIVE
        return *self.show(id), self.links.news(training.name) if trained else gr.skip()

    def _cancel(self, id: str) -> tuple[Any, ...]:
        self.trainings.find(id).cancel()
        return self.show(id)

    def _resume(self, id: str) -> tuple[Any, ...]:
        return self.show(self.trainings.resume(id).id)

    def _open(self, id: str) -> tuple[Any, ...]:
        return self.links.news(self.trainings.find(id).name), gr.Tabs(selected="generate")


def label(training: Training) -> str:
    """`rex, 21 Nov 14:05`."""
    return f"{training.name}, {training.began:%d %b %H:%M}"
