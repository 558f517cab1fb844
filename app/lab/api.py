"""Fusing and evaluating in the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from spectral_fusion.errors import InputError
from spectral_fusion_app.errors import answered
from spectral_fusion_app.lab.evaluations import Evaluation, Evaluator
from spectral_fusion_app.lab.fusing import Fusing, LoraFormat
from spectral_fusion_app.visitors import visitor_of


def build(fusing: Fusing, evaluator: Evaluator) -> None:
    """Add the endpoints to the page that is being made."""
    endpoints = Endpoints(fusing, evaluator)
    hidden = {"visible": False}
    wanted = [
        gr.JSON({}, label="Weights by name", **hidden),
        gr.Textbox("kohya", label="kohya or diffusers", **hidden),
        gr.Checkbox(label="Although bands overlap", **hidden),
    ]
    files = gr.File(file_count="multiple", label="Files", **hidden)
    gr.Button(visible=False).click(answered(endpoints.fuse_lora), wanted, files, api_name="fuse_lora")
    gr.api(answered(endpoints.overlaps), api_name="overlaps")
    gr.api(answered(endpoints.fuse_folder), api_name="fuse_folder")
    for function in (endpoints.evaluation, endpoints.cancel_evaluation):
        gr.api(answered(function), api_name=function.__name__)
    gr.api(answered(endpoints.evaluate), api_name="evaluate")


class Endpoints:
    """The functions; their docstrings are what the page of the API says."""

    def __init__(self, fusing: Fusing, evaluator: Evaluator) -> None:
        self.fusing, self.evaluator = fusing, evaluator

    def overlaps(self, names: list[str]) -> dict[str, Any]:
        """How much the bands of concepts overlap, 0 disjoint to 1, and how many more concepts fit their base."""
        check = self.fusing.check(names)
        return {"names": check.names, "overlaps": check.overlaps, "disjoint": check.disjoint, "room": check.bands.free}

    async def fuse_folder(
        self, request: gr.Request, weights: dict[str, float], folder: str, overlap: bool = False, replace: bool = False
    ) -> str:
        """Fuse concepts and write a diffusers pipeline; returns where it lies on the server."""
        job = self.fusing.save_folder(visitor_of(request), weights, folder, overlap=overlap, replace=replace)
        async for _ in self.fusing.studio.line.follow(job):
            pass
        if job.result is None:
            raise InputError("this was cancelled; nothing was written")
        return str(job.result)

    def fuse_lora(self, weights: dict[str, float], format: LoraFormat, overlap: bool) -> Iterator[list[str]]:
        """The sum of concepts as one LoRA ("kohya" or "diffusers"), and the embeddings of their triggers."""
        with TemporaryDirectory() as folder:
            files = self.fusing.save_lora(weights, format, Path(folder), overlap=overlap)
            yield [str(path) for path in files]

    def evaluate(
        self, names: list[str], methods: list[str] | None = None, seeds: int = 1, steps: int = 20
    ) -> dict[str, Any]:
        """Start to compare concepts of the library: alone, fused, together, in regions."""
        return described(self.evaluator.start(names, methods, seeds, steps))

    def evaluation(self, id: str) -> dict[str, Any]:
        """How an evaluation stands."""
        return described(self.evaluator.evaluations.find(id))

    def cancel_evaluation(self, id: str) -> dict[str, Any]:
        """Stop an evaluation; what it has drawn is lost."""
        evaluation = self.evaluator.evaluations.find(id)
        evaluation.process.stop()
        return described(evaluation)


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
