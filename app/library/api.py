"""The library in the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr

from spectral_fusion_app.errors import answered
from spectral_fusion_app.library.imports import add, remove, rename, restore
from spectral_fusion_app.library.shelf import ExportFormat, Shelf
from spectral_fusion_app.studio import Studio


def build(studio: Studio) -> None:
    """Add the endpoints to the page that is being made."""
    endpoints = Endpoints(studio)
    hidden = {"visible": False}
    given = [
        gr.File(label="Concept file", **hidden),
        gr.Textbox("", label="Name here; empty: the file's own", **hidden),
        gr.Textbox("", label="Trigger here; empty: the file's own", **hidden),
        gr.Checkbox(label="Replace a concept of this name", **hidden),
    ]
    wanted = [
        gr.Textbox("", label="Name", **hidden),
        gr.Textbox("concept", label="concept, diffusers or kohya", **hidden),
    ]
    files = gr.File(file_count="multiple", label="Files", **hidden)
    button = gr.Button(visible=False)
    button.click(
        answered(endpoints.import_concept), given, gr.JSON(label="Concept", **hidden), api_name="import_concept"
    )
    button.click(answered(endpoints.export_concept), wanted, files, api_name="export_concept")
    for function in (endpoints.rename_concept, endpoints.delete_concept, endpoints.restore_concept, endpoints.loras):
        gr.api(answered(function), api_name=function.__name__)


class Endpoints:
    """The functions; their docstrings are what the page of the API says."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    @property
    def shelf(self) -> Shelf:
        """The library."""
        return Shelf(self.studio.settings.library)

    def import_concept(
        self, file: str | None, name: str = "", trigger: str = "", replace: bool = False
    ) -> dict[str, str]:
        """Copy a concept file, or a LoRA for the loaded base, into the library; an empty text is the file's own."""
        info = add(self.studio, file, name, trigger, replace)
        return {"name": info.name, "trigger": info.trigger}

    def export_concept(self, name: str, format: ExportFormat = "concept") -> Iterator[list[str]]:
        """A concept's file, or a LoRA ("diffusers" or "kohya") and the embedding of its trigger."""
        with TemporaryDirectory() as folder:
            yield [str(path) for path in self.shelf.export(name, format, Path(folder))]

    def rename_concept(self, name: str, trigger: str = "", new_name: str = "") -> dict[str, str]:
        """Give a concept another trigger, another name, or both; an empty text leaves it."""
        library = self.shelf.library
        info = library.info(name)
        if new_name.strip():
            info = rename(self.studio, name, new_name.strip())
        if trigger.strip():
            info = library.set_trigger(info.name, trigger.strip())
        return {"name": info.name, "trigger": info.trigger}

    def delete_concept(self, name: str) -> str:
        """Move a concept or LoRA to the library's trash."""
        remove(self.studio, name)
        return name

    def restore_concept(self, name: str) -> dict[str, str]:
        """Bring back the concept or LoRA that was deleted last under this name."""
        found = restore(self.studio, name)
        known = [*self.shelf.library.list(), *self.studio.loras.list()]
        return {"name": found, "trigger": next((info.trigger for info in known if info.name == found), "")}

    def loras(self) -> list[dict]:
        """LoRAs of other programs that were imported: name, trigger, base, rank, layers, unmatched, size."""
        return [asdict(info) for info in self.studio.loras.list()]
