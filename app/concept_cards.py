"""Chips of the library's concepts that go into the prompt, and a card with a weight for each that is in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from spectral_fusion_app.draft import insert, remove, used_concepts
from spectral_fusion_app.errors import shown
from spectral_fusion_app.links import Links
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.shelf import Shelf
from spectral_fusion_app.shelf_html import CHOOSE, chip_html
from spectral_fusion_app.studio import Studio

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo


class ConceptCards:
    """Which concepts are in use, and how much of each.

    Attributes:
        weights: of every concept that was ever moved, by name.
        pinned: in use although no prompt names them, as in a picture that was restored.
        used: names, found in the prompts.
        redraw: news when a weight was moved and a picture is wanted of it.
        restored: news when `weights` was set from elsewhere, so that cards show it.
    """

    def __init__(self, studio: Studio, links: Links) -> None:
        self.studio, self.links = studio, links
        self.weights = gr.State({})
        self.pinned = gr.State(())
        self.used = gr.State([])
        self.redraw = gr.State(("", 0))
        self.restored = gr.State(("", 0))

    def draw_chips(self, prompt: gr.Textbox) -> None:
        """One button a concept, wherever this is called.

        One listener serves them all: listeners that are drawn anew with their buttons are gone, for Gradio, when the
        page asks for one that it still shows.
        """
        chips = gr.HTML(elem_id="chips", js_on_load=CHOOSE)
        changes = [self.links.library.change, self.links.base.change]
        gr.on(changes, shown(self.chips), None, chips, **QUIET)
        gr.on(None, shown(self.chips), None, chips, **QUIET)
        chips.select(shown(self._insert), prompt, prompt, **QUIET)

    def chips(self) -> str:
        """The concepts that fit the base, as buttons."""
        cards = Shelf(self.studio.settings.library).cards_of(self.studio.concepts())
        if not cards:
            none = "No concepts for this base yet: train one, or import its file."
            return f'<p class="hint">{none}</p>' if self.studio.fingerprint else ""
        return f'<div class="chips">{"".join(map(chip_html, cards))}</div>'

    def _insert(self, prompt: str, event: gr.EventData) -> str:
        return insert(prompt or "", self.studio.library.info(str(event.name)))

    def draw_cards(self, prompts: Callable[[], Sequence[gr.Textbox]]) -> None:
        """prompts: all fields that may name a concept; asked for late, since some are drawn further down."""
        changes = [self.used.change, self.restored.change]

        @gr.render(inputs=[self.used, self.weights], triggers=changes, show_progress="hidden")
        def cards(used: list[str], weights: dict[str, float]) -> None:
            known = {info.name: info for info in self.studio.concepts()}
            with gr.Row(elem_classes="cards"):
                for name in used:
                    if name in known:
                        self._draw_card(known[name], weights.get(name, 1.0), prompts())

        self.live = gr.Checkbox(label="Draw again when a weight moves", visible=False, elem_id="live", container=False)

    def connect(self, prompts: Sequence[gr.Textbox]) -> None:
        """Find the concepts in use whenever a prompt changes."""
        for source in (self.pinned, *prompts):
            source.change(self.find, [self.used, self.pinned, *prompts], [self.used, self.live], **QUIET)

    def find(self, before: list[str], pinned: Sequence[str], *prompts: str) -> Any:
        """The concepts in use, and whether there is any weight to move."""
        used = used_concepts(self.studio.concepts(), [text or "" for text in prompts], pinned)
        return gr.skip() if used == before else (used, gr.Checkbox(visible=bool(used)))

    def _draw_card(self, info: ConceptInfo, weight: float, prompts: Sequence[gr.Textbox]) -> None:
        with gr.Group(elem_classes="card"), gr.Row(elem_classes="tight"):
            slider = gr.Slider(
                -1.0,
                2.0,
                value=weight,
                step=0.05,
                label=f"{info.name} · band {info.band.label}",
                scale=5,
                min_width=120,
                interactive=True,  # what is drawn late would be for showing alone
                elem_id=f"weight-{info.name}",
                buttons=[],
            )
            away = gr.Button("✕", size="sm", scale=0, min_width=32, elem_id=f"away-{info.name}")
        set_weight = [self.weights, slider]
        slider.change(_setter(info.name), set_weight, self.weights, trigger_mode="always_last", **QUIET)
        slider.release(self._move, self.live, self.redraw, **QUIET)
        texts = [self.pinned, *prompts]
        away.click(_remover(info), texts, texts, **QUIET)

    def _move(self, live: bool) -> Any:
        return self.links.news() if live else gr.skip()


def _setter(name: str) -> Callable[[dict[str, float], float], dict[str, float]]:
    return lambda weights, value: weights | {name: float(value)}


def _remover(info: ConceptInfo) -> Callable[..., list[Any]]:
    def take_out(pinned: Sequence[str], *prompts: str) -> list[Any]:
        rest = tuple(name for name in pinned if name != info.name)
        return [rest, *(remove(text or "", info) for text in prompts)]

    return take_out
