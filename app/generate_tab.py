"""The Generate tab: prompt, concepts, boxes, settings; the picture as it comes; the history."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import gradio as gr

from spectral_fusion_app.concept_cards import ConceptCards
from spectral_fusion_app.draft import Draft, draw_seed, insert
from spectral_fusion_app.errors import shown, warn
from spectral_fusion_app.history_panel import HistoryPanel
from spectral_fusion_app.links import Links
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.region_canvas import RegionCanvas
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.stage import stage_html
from spectral_fusion_app.studio import Progress, Studio
from spectral_fusion_app.visitors import visitor_of


def build(studio: Studio, settings: AppSettings, links: Links) -> None:
    """Draw the tab and connect it."""
    GenerateTab(studio, settings, links).connect()


class GenerateTab:
    """The widgets as attributes, the listeners as methods."""

    def __init__(self, studio: Studio, settings: AppSettings, links: Links) -> None:
        self.studio, self.settings, self.links = studio, settings, links
        self.concepts = ConceptCards(studio, links)
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320):
                self._draw_prompt()
                with gr.Accordion("Boxes", open=False, elem_id="boxes"):
                    self.regions = RegionCanvas(studio, settings.limits.regions)
                self._draw_settings()
            with gr.Column(scale=6, min_width=320):
                self.stage = gr.HTML(elem_id="stage", padding=False)
                self.results = gr.Gallery(
                    label="Picture",
                    columns=2,
                    height="auto",
                    object_fit="contain",
                    buttons=["download", "fullscreen"],
                    elem_id="results",
                    interactive=False,
                )
                self.history = HistoryPanel(studio)

    def _draw_prompt(self) -> None:
        self.prompt = gr.Textbox(
            label="Prompt",
            lines=2,
            max_lines=8,
            placeholder="a photo of a dog on grass",
            max_length=self.settings.limits.prompt,
            elem_id="prompt",
        )
        self.concepts.draw_chips(self.prompt)
        with gr.Row(elem_classes="tight"):
            self.go = gr.Button("Generate", variant="primary", scale=3, min_width=120, elem_id="generate")
            self.stop = gr.Button("Cancel", scale=1, min_width=80, interactive=False, elem_id="cancel")
        self.concepts.draw_cards(lambda: self.prompts)

    def _draw_settings(self) -> None:
        limits = self.settings.limits
        with gr.Accordion("Settings", open=True, elem_id="settings"):
            self.negative = gr.Textbox(label="Negative prompt", max_length=limits.prompt, elem_id="negative")
            with gr.Row():
                self.sampler = gr.Dropdown([Draft.sampler], value=Draft.sampler, label="Sampler", min_width=150)
                self.steps = _slider("Steps", 1, limits.steps, Draft.steps)
                self.guidance = _slider("Guidance", 0, 20, Draft.guidance_scale, 0.5)
            with gr.Row():
                self.width = _slider("Width", 32, limits.edge, 64, 8)
                self.height = _slider("Height", 32, limits.edge, 64, 8)
                self.batch = _slider("Pictures", 1, limits.pictures, 1)
            with gr.Row(elem_classes="tight", equal_height=True):
                self.seed = gr.Textbox(label="Seed", placeholder="random", scale=3, min_width=120, elem_id="seed")
                self.dice = gr.Button("Roll", size="sm", scale=0, min_width=60, elem_id="dice")
                self.lock = gr.Checkbox(label="Keep", value=False, scale=0, min_width=90, elem_id="lock")
                self.factors = gr.Textbox(
                    label="Grid: weights times", placeholder="0, 0.5, 1", scale=3, min_width=120, elem_id="factors"
                )

    @property
    def prompts(self) -> list[gr.Textbox]:
        """All fields that may name a concept."""
        return [self.prompt, *self.regions.prompts]

    def connect(self) -> None:
        """Attach the listeners."""
        history, concepts, links = self.history, self.concepts, self.links
        concepts.connect(self.prompts)
        self.regions.connect(concepts.used, self.prompt, self.width, self.height)
        form = {*self._plain.values(), self.lock, self.regions.canvas, *self.prompts, concepts.weights, concepts.pinned}
        busy = [self.stage, self.go, self.stop]
        gr.on(
            [self.go.click, self.prompt.submit, concepts.redraw.change],
            shown(self.generate),
            form,
            [*busy, self.results, history.gallery, self.seed],
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        ).failure(self.idle, None, busy, **QUIET)
        self.stop.click(self.cancel, None, None, **QUIET)
        self.dice.click(lambda: (draw_seed(), True), None, [self.seed, self.lock], **QUIET)
        self.seed.input(lambda: True, None, self.lock, **QUIET)
        restored = [*self._plain.values(), self.lock, self.prompt, *self.regions.widgets]
        restored += [concepts.weights, concepts.pinned, concepts.restored]
        history.reuse.click(shown(self.reuse), history.chosen, restored, **QUIET)
        history.dropped.upload(shown(self.drop), history.dropped, restored, **QUIET)
        links.base.change(
            shown(self.fit), None, [self.sampler, self.width, self.height, *self.regions.widgets], **QUIET
        )
        links.open_concept.change(shown(self.open), [links.open_concept, self.prompt], self.prompt, **QUIET)

    @property
    def _plain(self) -> dict[str, Any]:
        """Fields of `Draft` that are one widget each."""
        return {
            "negative_prompt": self.negative,
            "sampler": self.sampler,
            "steps": self.steps,
            "guidance_scale": self.guidance,
            "width": self.width,
            "height": self.height,
            "seed": self.seed,
            "num_images": self.batch,
            "factors": self.factors,
        }

    def read(self, form: dict[Any, Any]) -> Draft:
        """The widgets' values as a draft. Raises InputError."""
        plain = {name: form[widget] for name, widget in self._plain.items()}
        draft = Draft(
            form[self.prompt] or "",
            weights=form[self.concepts.weights],
            pinned=tuple(form[self.concepts.pinned]),
            regions=self.regions.regions(form[self.regions.canvas], [form[text] for text in self.regions.prompts]),
            **plain,
        )
        return draft if form[self.lock] else replace(draft, seed="")

    async def generate(self, request: gr.Request, form: dict[Any, Any]) -> AsyncIterator[dict[Any, Any]]:
        """Make the pictures of the form and show how far they are; previous ones stay until the first is done."""
        asked = self.read(form).request(self.studio.concepts(), self.studio.triggers())
        job = self.studio.generate(visitor_of(request), asked)
        began, done = time.monotonic(), 0
        buttons = {self.go: gr.Button(interactive=False), self.stop: gr.Button(interactive=True)}
        yield {self.stage: stage_html(0, 0), self.seed: str(asked.config.seed), **buttons}
        async for news in self.studio.line.follow(job):
            if not isinstance(news, Progress):
                began = time.monotonic()
            update = {self.stage: stage_html(news, time.monotonic() - began)}
            if isinstance(news, Progress) and len(news.finished) > done:
                done = len(news.finished)
                update[self.results] = [str(path.resolve()) for path in news.finished]
            yield update
        files = job.result or []
        yield {
            **dict(zip([self.stage, self.go, self.stop], self.idle(), strict=True)),
            self.results: [str(path.resolve()) for path in files] if files else gr.skip(),
            self.history.gallery: self.history.newest(),
        }

    def idle(self) -> tuple[str, gr.Button, gr.Button]:
        """Stage and buttons when nothing is being made."""
        return "", gr.Button(interactive=True), gr.Button(interactive=False)

    def cancel(self, request: gr.Request) -> None:
        """Stop what this page has running or waiting; what is finished is kept."""
        self.studio.cancel(visitor_of(request))

    def reuse(self, name: str | None) -> dict[Any, Any]:
        """The settings of the chosen picture of the history."""
        return self.show(self.history.chosen_draft(name))

    def drop(self, path: str | None) -> dict[Any, Any]:
        """The settings of a dropped picture; those on the page stay where it carries none."""
        draft = self.history.dropped_draft(path)
        return {} if draft is None else self.show(draft)

    def show(self, draft: Draft) -> dict[Any, Any]:
        """Every widget's value for a draft."""
        known = {info.name for info in self.studio.concepts()}
        if missing := sorted(draft.weights.keys() - known):
            warn(f"the library has no concept {', '.join(missing)} that fits this base")
        width, height = self.studio.size
        draft = replace(draft, width=draft.width or width, height=draft.height or height)
        return {
            **{widget: getattr(draft, name) for name, widget in self._plain.items()},
            **self.regions.show(draft.regions, draft.width or width, draft.height or height),
            self.prompt: draft.prompt,
            self.lock: True,
            self.concepts.weights: dict(draft.weights),
            self.concepts.pinned: tuple(name for name in draft.pinned if name in known),
            self.concepts.restored: self.links.news(),
        }

    def fit(self) -> dict[Any, Any]:
        """What depends on the base: its samplers, its own size."""
        from spectral_fusion.base.samplers import SAMPLERS

        width, height = self.studio.size
        sizes = {self.width: width, self.height: height}
        return {self.sampler: gr.Dropdown(list(SAMPLERS)), **sizes, **self.regions.show((), width, height)}

    def open(self, news: tuple[str, int], prompt: str) -> str:
        """Put a concept that another tab chose into the prompt."""
        return insert(prompt or "", self.studio.library.info(news[0]))


def _slider(label: str, low: float, high: float, value: float, step: float = 1) -> gr.Slider:
    return gr.Slider(low, high, value=value, step=step, label=label, min_width=150, buttons=[], elem_id=label.lower())
