"""The gallery of all pictures, newest first: choose one to reuse its settings or to download it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from spectral_fusion.errors import InputError
from spectral_fusion_app.draft import Draft, picture_draft
from spectral_fusion_app.errors import shown
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.studio import Studio

SHOWN = 24
PICTURES = [".png", ".jpg", ".jpeg", ".webp"]


class HistoryPanel:
    """Widgets of the history. `chosen` and `dropped` carry the path of a picture whose settings are wanted."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.count = gr.State(SHOWN)
        self.chosen = gr.State(None)
        with gr.Column(elem_classes="history"):
            self.gallery = gr.Gallery(
                label="History",
                columns=6,
                height="auto",
                object_fit="contain",
                fit_columns=False,
                buttons=["download", "fullscreen"],
                elem_id="history",
                interactive=False,
            )
            with gr.Row(elem_classes="tight"):
                self.reuse = gr.Button("Reuse these settings", size="sm", interactive=False, elem_id="reuse")
                self.download = gr.DownloadButton("Download", size="sm", interactive=False, elem_id="download")
                self.more = gr.Button("Older", size="sm", elem_id="older")
            self.dropped = gr.File(
                label="Drop a picture to restore its settings", file_types=PICTURES, height=110, elem_id="restore"
            )
        gr.on(None, self.newest, None, self.gallery, **QUIET)  # when the page is opened
        self.gallery.select(shown(self.choose), None, [self.chosen, self.reuse, self.download], **QUIET)
        self.more.click(shown(self.older), self.count, [self.count, self.gallery], **QUIET)

    def newest(self, count: int = SHOWN) -> list[str]:
        """The gallery's value."""
        return [str(path.resolve()) for path in self.studio.history.newest(count)]

    def older(self, count: int) -> tuple[int, list[str]]:
        """Show more of the history."""
        count = min(count + SHOWN, len(self.studio.history))
        return count, self.newest(count)

    def choose(self, event: gr.SelectData) -> tuple[str, Any, Any]:
        """Remember which picture of the gallery was pressed; its name is looked up in the history, never trusted."""
        name = Path(str(event.value["image"]["path"])).name
        path = self.studio.history.find(name)
        return name, gr.Button(interactive=True), gr.DownloadButton(value=str(path.resolve()), interactive=True)

    def chosen_draft(self, name: str | None) -> Draft:
        """The settings of the chosen picture. Raises InputError."""
        if name is None:
            raise InputError("no picture is chosen; press one of the history")
        return picture_draft(self.studio.history.find(name))

    def dropped_draft(self, path: str | None) -> Draft | None:
        """The settings of a dropped picture; None where it was taken away. Raises InputError."""
        return None if path is None else picture_draft(Path(path))
