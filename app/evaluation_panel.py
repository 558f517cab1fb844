"""Comparing concepts: start an evaluation, follow it, see its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from spectral_fusion.errors import InputError
from spectral_fusion_app.errors import answered, shown
from spectral_fusion_app.evaluations import METHODS, EvaluateRequest, Evaluation, Evaluations
from spectral_fusion_app.fuse_html import evaluation_html, report_html
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.trainings import Trainings

TICK_SECONDS = 1.0


class EvaluationPanel:
    """The evaluations as a page shows them; all of it is read from disk, so a reload loses nothing."""

    def __init__(self, studio: Studio, settings: AppSettings) -> None:
        self.studio = studio
        self.trainings = Trainings(settings.trainings, settings.library)
        self.evaluations = Evaluations(settings.evaluations, settings.library)
        self.seen = gr.State(None)
        self.timer = gr.Timer(TICK_SECONDS, active=False)
        with gr.Row(elem_classes="tight"):
            self.methods = gr.CheckboxGroup(
                list(METHODS), value=list(METHODS[:1]), label="Ways of fusing", min_width=300
            )
            self.seeds = gr.Number(1, precision=0, minimum=1, maximum=10, label="Pictures a prompt", min_width=100)
            self.steps = gr.Number(20, precision=0, minimum=1, maximum=100, label="Steps", min_width=100)
        with gr.Row(elem_classes="tight"):
            self.go = gr.Button("Evaluate", elem_id="evaluate")
            self.cancel = gr.Button("Cancel", visible=False, min_width=80, elem_id="cancel-evaluation")
        self.chosen = gr.Dropdown([], label="Evaluation", visible=False, elem_id="evaluation")
        self.state = gr.HTML(elem_id="evaluation-state")
        self.report = gr.HTML(elem_id="report")
        self.file = gr.File(label="Report as one file", visible=False, interactive=False, elem_id="report-file")

    @property
    def outputs(self) -> list[Any]:
        """What `show` returns the values of."""
        return [self.chosen, self.state, self.cancel, self.report, self.file, self.seen, self.timer]

    def connect(self, names: gr.Dropdown) -> None:
        """Listen; `names`: the concepts to compare."""
        gr.on(None, shown(self.show), None, self.outputs, **QUIET)  # when the page is loaded
        asked = [names, self.methods, self.seeds, self.steps]
        self.go.click(shown(self._start), asked, self.outputs, api_visibility="private")
        self.cancel.click(shown(self._cancel), self.chosen, self.outputs, **QUIET)
        self.chosen.input(shown(self.show), self.chosen, self.outputs, **QUIET)
        self.timer.tick(shown(self._follow), [self.chosen, self.seen], self.outputs, **QUIET)
        functions: list[Callable[..., Any]] = [self.evaluate, self.evaluation, self.cancel_evaluation]
        for function in functions:
            gr.api(answered(function), api_name=function.__name__)

    def evaluate(
        self, names: list[str], methods: list[str] | None = None, seeds: int = 1, steps: int = 20
    ) -> dict[str, Any]:
        """Start to compare concepts of the library: alone, fused, together, in regions."""
        request = EvaluateRequest(
            tuple(names),
            tuple(self._photos(name) for name in names),
            self.studio.state.base,
            tuple(methods or METHODS[:1]),
            int(seeds),
            int(steps),
        )
        return described(self.evaluations.start(request))

    def evaluation(self, id: str) -> dict[str, Any]:
        """How an evaluation stands."""
        return described(self.evaluations.find(id))

    def cancel_evaluation(self, id: str) -> dict[str, Any]:
        """Stop an evaluation; what it has drawn is lost."""
        evaluation = self.evaluations.find(id)
        evaluation.process.stop()
        return described(evaluation)

    def show(self, id: str | None = None) -> tuple[Any, ...]:
        """Everything of one evaluation; of the newest where none is named."""
        found = self.evaluations.list()
        if not found:
            return (gr.skip(),) * len(self.outputs)
        evaluation = next((evaluation for evaluation in found if evaluation.id == id), found[0])
        state, report = evaluation.state(), evaluation.report
        active = state.kind in ("running", "stopping")
        return (
            gr.Dropdown(choices=[(label(other), other.id) for other in found], value=evaluation.id, visible=True),
            evaluation_html(evaluation, state),
            gr.Button(visible=active),
            report_html(report.read_text(encoding="utf-8")) if report else "",
            gr.File(value=str(report) if report else None, visible=report is not None),
            (evaluation.id, state.kind, evaluation.stage()),
            gr.Timer(active=active),
        )

    def _follow(self, id: str, seen: tuple[str, str, str] | None) -> tuple[Any, ...]:
        """What is new since the last tick."""
        evaluation = self.evaluations.find(id)
        if (evaluation.id, evaluation.state().kind, evaluation.stage()) == seen:
            return (gr.skip(),) * len(self.outputs)
        return self.show(id)

    def _start(self, names: list[str], methods: list[str], seeds: int, steps: int) -> tuple[Any, ...]:
        return self.show(self.evaluate(names or [], methods, seeds, steps)["id"])

    def _cancel(self, id: str) -> tuple[Any, ...]:
        self.cancel_evaluation(id)
        return self.show(id)

    def _photos(self, name: str) -> Path:
        """The photos of a concept: beside it in the library, else those that it was trained on here."""
        beside = self.studio.library.find(name).parent / "images"
        folder = beside if beside.is_dir() else self.trainings.photos(name)
        if folder is None:
            raise InputError(f"there are no photos of {name!r} to compare with; put some into {beside}")
        return folder


def label(evaluation: Evaluation) -> str:
    """`rex + tom, 20261121-1405`."""
    return f"{' + '.join(evaluation.names)}, {evaluation.id[:13]}"


def described(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as programs see it; `figures` is the report's JSON, once it is there."""
    state = evaluation.state()
    return {
        "id": evaluation.id,
        "names": evaluation.names,
        "state": state.kind,
        "stage": evaluation.stage(),
        "error": state.error,
        "figures": evaluation.figures(),
    }
