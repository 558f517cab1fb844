"""The Concepts tab: the library's cards and bands; import, export, rename, delete and its undoing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from spectral_fusion_app.errors import answered, shown
from spectral_fusion_app.links import Links
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.shelf import ExportFormat, Shelf
from spectral_fusion_app.shelf_html import CHOOSE, bands_html, cards_html, details_html
from spectral_fusion_app.studio import Studio

FORMATS = [("concept file", "concept"), ("LoRA for diffusers", "diffusers"), ("LoRA for kohya and most UIs", "kohya")]


def build(studio: Studio, settings: AppSettings, links: Links) -> None:
    """Draw the tab and connect it."""
    ConceptsTab(studio, settings, links).connect()


class ConceptsTab:
    """The widgets as attributes, the listeners as methods."""

    def __init__(self, studio: Studio, settings: AppSettings, links: Links) -> None:
        self.studio, self.settings, self.links = studio, settings, links
        self.chosen = gr.Textbox("", visible="hidden", label="Concept")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=7, min_width=320):
                self.cards = gr.HTML(elem_id="shelf", js_on_load=CHOOSE)
                self.bands = gr.HTML(elem_id="bands")
            with gr.Column(scale=4, min_width=320):
                self._draw_chosen()
                self._draw_import()

    @property
    def shelf(self) -> Shelf:
        """The library."""
        return Shelf(self.settings.library)

    def _draw_chosen(self) -> None:
        with gr.Column(visible=False, elem_id="concept") as self.panel:
            self.details = gr.HTML(elem_id="concept-details")
            self.open = gr.Button("Open in Generate", variant="primary", elem_id="open-concept")
            with gr.Row(elem_classes="tight"):
                self.format = gr.Dropdown(FORMATS, value="concept", label="Export as", min_width=160)
                self.export = gr.Button("Export", min_width=80, scale=0, elem_id="export-concept")
            self.exported = gr.File(
                label="Exported", file_count="multiple", interactive=False, visible=False, elem_id="exported"
            )
            with gr.Row(elem_classes="tight"):
                self.trigger = gr.Textbox(label="Trigger", max_length=64, min_width=160, elem_id="concept-trigger")
                self.rename = gr.Button("Rename", min_width=80, scale=0, elem_id="rename-concept")
            self.delete = gr.Button("Delete", variant="stop", elem_id="delete-concept")
        with gr.Row(visible=False, elem_classes="tight") as self.undo_row:
            self.removed = gr.Dropdown([], label="Deleted", min_width=160, elem_id="deleted-concepts")
            self.undo = gr.Button("Undo delete", min_width=80, scale=0, elem_id="undo-delete")

    def _draw_import(self) -> None:
        with gr.Accordion("Import a concept", open=True):
            self.file = gr.File(label="Concept file (.safetensors)", height=120, elem_id="import-file")
            with gr.Row():
                self.new_name = gr.Textbox(
                    label="Name here", placeholder="as the file says", max_length=64, min_width=120
                )
                self.new_trigger = gr.Textbox(
                    label="Trigger here", placeholder="as the file says", max_length=64, min_width=120
                )
            self.replace = gr.Checkbox(label="Replace a concept of this name")
            self.add = gr.Button("Import", elem_id="import")

    @property
    def outputs(self) -> list[Any]:
        """What `show` returns the values of."""
        widgets = [self.cards, self.bands, self.panel, self.details, self.trigger, self.exported]
        return [*widgets, self.undo_row, self.removed, self.chosen]

    def connect(self) -> None:
        """Listen, and offer the same to programs."""
        changed = [*self.outputs, self.links.library]
        gr.on([self.links.library.change, self.links.base.change], shown(self.show), self.chosen, self.outputs, **QUIET)
        gr.on(None, shown(self._load), None, self.outputs, **QUIET)
        self.cards.select(shown(self._choose), None, self.outputs, **QUIET)
        self.open.click(shown(self._open), self.chosen, [self.links.open_concept, self.links.tabs], **QUIET)
        self.export.click(shown(self._export), [self.chosen, self.format], self.exported, api_visibility="private")
        self.rename.click(shown(self._rename), [self.chosen, self.trigger], changed, **QUIET)
        self.delete.click(shown(self._delete), self.chosen, changed, **QUIET)
        self.undo.click(shown(self._undo), self.removed, changed, **QUIET)
        given = [self.file, self.new_name, self.new_trigger, self.replace]
        self.add.click(shown(self._add), given, [*changed, self.file], **QUIET)
        self._connect_programs(given)

    def _connect_programs(self, given: list[gr.Component]) -> None:
        answer, files = gr.JSON(visible=False), gr.File(file_count="multiple", visible=False)
        endpoint = gr.Button(visible=False)
        endpoint.click(answered(self.import_concept), given, answer, api_name="import_concept")
        endpoint.click(answered(self.export_concept), [self.chosen, self.format], files, api_name="export_concept")
        for function in (self.rename_concept, self.delete_concept, self.restore_concept):
            gr.api(answered(function), api_name=function.__name__)

    def import_concept(self, file: str | None, name: str, trigger: str, replace: bool) -> dict[str, str]:
        """Copy a concept file into the library; an empty name or trigger is the file's own."""
        info = self.shelf.add(file, name=name or "", trigger=trigger or "", replace=bool(replace))
        return {"name": info.name, "trigger": info.trigger}

    def export_concept(self, name: str, format: ExportFormat) -> Iterator[list[str]]:
        """A concept's file, or a LoRA ("diffusers" or "kohya") and the embedding of its trigger."""
        with TemporaryDirectory() as folder:
            yield [str(path) for path in self.shelf.export(name, format, Path(folder))]

    def rename_concept(self, name: str, trigger: str) -> dict[str, str]:
        """Give a concept another trigger."""
        info = self.shelf.library.rename(name, trigger.strip())
        return {"name": info.name, "trigger": info.trigger}

    def delete_concept(self, name: str) -> str:
        """Move a concept to the library's trash."""
        self.shelf.library.remove(name)
        return name

    def restore_concept(self, name: str) -> dict[str, str]:
        """Bring back the concept that was deleted last under this name."""
        info = self.shelf.library.restore(name)
        return {"name": info.name, "trigger": info.trigger}

    def show(self, chosen: str = "") -> tuple[Any, ...]:
        """All of the tab, with one concept chosen."""
        shelf = self.shelf
        cards = shelf.cards()
        card = next((card for card in cards if card.info.name == chosen), None)
        removed = list(shelf.library.removed())
        return (
            cards_html(cards, chosen),
            bands_html(shelf.bands()),
            gr.Column(visible=card is not None),
            details_html(card) if card else "",
            card.info.trigger if card else "",
            gr.File(value=None, visible=False),
            gr.Row(visible=bool(removed)),
            gr.Dropdown(choices=removed, value=removed[0] if removed else None),
            chosen if card else "",
        )

    def _load(self) -> tuple[Any, ...]:
        """When the page is loaded; while the base loads too, its news draw the tab."""
        return (gr.skip(),) * len(self.outputs) if self.studio.state.kind == "loading" else self.show()

    def _choose(self, event: gr.EventData) -> tuple[Any, ...]:
        return self.show(str(event.name))

    def _open(self, name: str) -> tuple[Any, ...]:
        return self.links.news(name), gr.Tabs(selected="generate")

    def _export(self, name: str, format: ExportFormat) -> Iterator[Any]:
        for files in self.export_concept(name, format):
            yield gr.File(value=files, visible=True)

    def _rename(self, name: str, trigger: str) -> tuple[Any, ...]:
        self.rename_concept(name, trigger)
        return *self.show(name), self.links.news(name)

    def _delete(self, name: str) -> tuple[Any, ...]:
        return *self.show(self.delete_concept(name)), self.links.news(name)

    def _undo(self, name: str) -> tuple[Any, ...]:
        self.restore_concept(name)
        return *self.show(name), self.links.news(name)

    def _add(self, file: str | None, name: str, trigger: str, replace: bool) -> tuple[Any, ...]:
        added = self.import_concept(file, name, trigger, replace)["name"]
        return *self.show(added), self.links.news(added), None
