"""The canvas of the Generate tab and the prompts of its boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio_image_annotation import image_annotator

from spectral_fusion.errors import InputError
from spectral_fusion_app.canvas import canvas_value, drawn_boxes
from spectral_fusion_app.draft import Box, follow_boxes, region_phrase
from spectral_fusion_app.errors import shown
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.studio import Studio

if TYPE_CHECKING:
    from collections.abc import Sequence


class RegionCanvas:
    """Boxes that are drawn, each with a prompt below, in the box's colour."""

    def __init__(self, studio: Studio, most: int) -> None:
        """most: how many boxes may have a prompt."""
        self.studio = studio
        self.boxes = gr.State([])
        self.canvas = image_annotator(
            canvas_value(1, 1),
            sources=[],
            disable_edit_boxes=True,
            show_clear_button=False,
            show_download_button=False,
            show_remove_button=True,
            show_share_button=False,
            boxes_alpha=0.25,
            box_min_size=4,
            show_label=False,
            label="Boxes",
            elem_id="canvas",
        )
        self.prompts = [
            gr.Textbox(label=f"Box {number + 1}", visible=False, elem_id=f"region-{number}") for number in range(most)
        ]

    @property
    def widgets(self) -> list[Any]:
        """What `show` sets."""
        return [self.canvas, self.boxes, *self.prompts]

    def connect(self, used: gr.State, prompt: gr.Textbox, width: gr.Slider, height: gr.Slider) -> None:
        """used: names of the concepts in use, and prompt: the picture's, for the first prompt of a new box."""
        rows = [self.boxes, *self.prompts]
        self.canvas.change(
            shown(self.follow), [self.canvas, used, prompt, *rows], rows, trigger_mode="always_last", **QUIET
        )
        for edge in (width, height):
            edge.release(self.reshape, [width, height, self.boxes], self.canvas, **QUIET)

    def follow(
        self, value: dict[str, Any], used: list[str], picture: str, before: list[Box], *prompts: str
    ) -> list[Any]:
        """Keep each box's prompt with it while boxes come and go."""
        drawn = drawn_boxes(value)
        boxes = [box for box, _ in drawn]
        if boxes == before:
            return [gr.skip()] * (1 + len(prompts))
        if len(boxes) > len(prompts):
            raise InputError(f"only {len(prompts)} boxes have prompts; remove one")
        kept = follow_boxes(before, boxes, prompts)
        texts = [self._first_prompt(used, picture, kept) if text is None else text for text in kept]
        return [boxes, *self._rows(texts, [color for _, color in drawn])]

    def show(self, regions: Sequence[tuple[str, Box]], width: float, height: float) -> dict[Any, Any]:
        """Values of `widgets` for regions that come from elsewhere, such as a picture."""
        boxes = [box for _, box in regions]
        value = canvas_value(width, height, boxes)
        drawn = drawn_boxes(value)
        rows = self._rows([prompt for prompt, _ in regions], [color for _, color in drawn])
        return {self.canvas: value, self.boxes: [box for box, _ in drawn], **dict(zip(self.prompts, rows, strict=True))}

    def reshape(self, width: float, height: float, boxes: list[Box]) -> dict[str, Any]:
        """The canvas in another shape, its boxes with it."""
        return canvas_value(width, height, boxes)

    def regions(self, value: dict[str, Any], prompts: Sequence[str | None]) -> tuple[tuple[str, Box], ...]:
        """Prompt and box of each region. Raises InputError where a box has no prompt field."""
        boxes = [box for box, _ in drawn_boxes(value)]
        if len(boxes) > len(prompts):
            raise InputError(f"{len(boxes)} boxes are more than the {len(prompts)} that have prompts; remove some")
        return tuple(zip((text or "" for text in prompts), boxes, strict=False))

    def _first_prompt(self, used: list[str], picture: str, texts: list[str | None]) -> str:
        """A new box begins with the first concept in use that has no box yet."""
        known = {info.name: info for info in self.studio.concepts()}
        taken = "\n".join(text or "" for text in texts)
        free = [known[name] for name in used if name in known and known[name].trigger not in taken]
        return region_phrase(picture, free[0], list(known.values())) if free else ""

    def _rows(self, texts: Sequence[str], colors: Sequence[int]) -> list[gr.Textbox]:
        rows = []
        for number in range(len(self.prompts)):
            if number < len(texts):
                classes = ["region", f"region-color-{colors[number]}"]
                rows.append(gr.Textbox(value=texts[number], visible=True, elem_classes=classes))
            else:
                rows.append(gr.Textbox(value="", visible=False))
        return rows
