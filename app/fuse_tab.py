"""The Fuse and compare tab: do concepts go together, as one pipeline or LoRA, and how well do they keep their faces."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from json import dumps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from spectral_fusion.errors import InputError
from spectral_fusion_app.errors import answered, shown
from spectral_fusion_app.evaluation_panel import EvaluationPanel
from spectral_fusion_app.fuse_html import check_html
from spectral_fusion_app.fusing import Fusing, LoraFormat
from spectral_fusion_app.links import Links
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.visitors import visitor_of

WEIGHTS = (-1.0, 2.0)
FORMATS = [("kohya and most UIs", "kohya"), ("diffusers", "diffusers")]


def build(studio: Studio, settings: AppSettings, links: Links) -> None:
    """Draw the tab and connect it."""
    FuseTab(studio, settings, links).connect()


class FuseTab:
    """The widgets as attributes, the listeners as methods."""

    def __init__(self, studio: Studio, settings: AppSettings, links: Links) -> None:
        self.studio, self.links = studio, links
        self.fusing = Fusing(studio, settings.fused)
        self.weights = gr.JSON({}, visible="hidden", label="Weights by name")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320):
                self.names = gr.Dropdown([], multiselect=True, label="Concepts", elem_id="fuse-concepts")
                self._draw_weights()
                self._draw_saving()
            with gr.Column(scale=6, min_width=320):
                self.check = gr.HTML(elem_id="fuse-check")
        with gr.Accordion("Evaluate", open=True):
            self.panel = EvaluationPanel(studio, settings)

    def _draw_weights(self) -> None:
        @gr.render(inputs=self.names, triggers=[self.names.change], queue=False, show_progress="hidden")
        def sliders(names: list[str] | None) -> None:
            for name in names or []:
                slider = gr.Slider(
                    *WEIGHTS,
                    value=1.0,
                    step=0.05,
                    label=name,
                    interactive=True,
                    elem_id=f"fuse-weight-{name}",
                    key=name,
                )
                # In the browser: a click on Save right after must not be faster than a request.
                change = f"(all, weight) => ({{...all, {dumps(name)}: weight}})"
                slider.change(None, [self.weights, slider], self.weights, js=change)

    def _draw_saving(self) -> None:
        self.overlap = gr.Checkbox(label="Fuse although bands overlap", elem_id="fuse-overlap")
        with gr.Row(elem_classes="tight"):
            self.name = gr.Textbox("fused", label="Pipeline folder", max_length=64, min_width=140, elem_id="fuse-name")
            self.replace = gr.Checkbox(label="Replace", min_width=90, scale=0)
            self.save = gr.Button("Save as pipeline", min_width=140, elem_id="save-folder")
        with gr.Row(elem_classes="tight"):
            self.format = gr.Dropdown(FORMATS, value="kohya", label="LoRA for", min_width=200)
            self.lora = gr.Button("Save as one LoRA", min_width=140, elem_id="save-lora")
        self.saved = gr.HTML(elem_id="fuse-saved")
        self.files = gr.File(
            label="LoRA and embeddings", file_count="multiple", interactive=False, visible=False, elem_id="fused-files"
        )

    def connect(self) -> None:
        """Listen, and offer the same to programs."""
        changes = [self.links.library.change, self.links.base.change]
        gr.on(changes, shown(self._offer), self.names, self.names, **QUIET)
        gr.on(None, shown(self._load), None, self.names, **QUIET)
        self.names.change(self._check, self.names, self.check, **QUIET)
        chosen = [self.names, self.weights]
        self.save.click(
            shown(self._save), [*chosen, self.name, self.overlap, self.replace], self.saved, api_visibility="private"
        )
        self.lora.click(
            shown(self._save_lora), [*chosen, self.format, self.overlap], self.files, api_visibility="private"
        )
        self.panel.connect(self.names)
        files = gr.File(file_count="multiple", visible=False)
        gr.Button(visible=False).click(
            answered(self.fuse_lora), [self.weights, self.format, self.overlap], files, api_name="fuse_lora"
        )
        gr.api(answered(self.overlaps), api_name="overlaps")
        gr.api(answered(self.fuse_folder), api_name="fuse_folder")

    def overlaps(self, names: list[str]) -> dict[str, Any]:
        """How much the bands of concepts overlap, 0 disjoint to 1, and how many more concepts fit."""
        check = self.fusing.check(names)
        return {"names": check.names, "overlaps": check.overlaps, "disjoint": check.disjoint, "room": check.bands.free}

    async def fuse_folder(
        self,
        request: gr.Request,
        weights: dict[str, float],
        folder: str,
        overlap: bool = False,
        replace: bool = False,
    ) -> str:
        """Fuse concepts and write a diffusers pipeline; returns where it lies on the server."""
        job = self.fusing.save_folder(visitor_of(request), weights, folder, overlap=overlap, replace=replace)
        async for _ in self.studio.line.follow(job):
            pass
        if job.result is None:
            raise InputError("this was cancelled; nothing was written")
        return str(job.result)

    def fuse_lora(self, weights: dict[str, float], format: LoraFormat, overlap: bool) -> Iterator[list[str]]:
        """The sum of concepts as one LoRA ("kohya" or "diffusers"), and the embeddings of their triggers."""
        with TemporaryDirectory() as folder:
            files = self.fusing.save_lora(weights or {}, format, Path(folder), overlap=bool(overlap))
            yield [str(path) for path in files]

    def _offer(self, names: list[str] | None) -> Any:
        """The concepts that can be chosen; those that are gone are no longer."""
        known = [info.name for info in self.studio.concepts()]
        return gr.Dropdown(choices=known, value=[name for name in names or [] if name in known])

    def _load(self) -> Any:
        """When the page is loaded; while the base loads too, its news fill the tab."""
        return gr.skip() if self.studio.state.kind == "loading" else self._offer([])

    def _check(self, names: list[str] | None) -> str:
        if not names:
            return '<p class="hint">Choose two or more concepts to see whether they go together.</p>'
        try:
            return check_html(self.fusing.check(names))
        except InputError as error:
            return f'<p class="error" role="alert">{escape(str(error))}</p>'

    async def _save(
        self,
        request: gr.Request,
        names: list[str] | None,
        weights: dict[str, float],
        folder: str,
        overlap: bool,
        replace: bool,
    ) -> str:
        path = await self.fuse_folder(request, self._chosen(names, weights), folder, overlap, replace)
        return f'<p class="good" role="status">saved in <code>{escape(path)}</code></p>'

    def _save_lora(
        self, names: list[str] | None, weights: dict[str, float], format: LoraFormat, overlap: bool
    ) -> Iterator[Any]:
        for files in self.fuse_lora(self._chosen(names, weights), format, overlap):
            yield gr.File(value=files, visible=True)

    def _chosen(self, names: list[str] | None, weights: dict[str, float] | None) -> dict[str, float]:
        return {name: float((weights or {}).get(name, 1.0)) for name in names or []}
