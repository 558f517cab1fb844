"""The contact sheet: photos, the same subjects alone and fused, and all of them in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from spectral_fusion.atomic import atomic_file
from spectral_fusion.evaluate import Evaluation
from spectral_fusion.evaluate.result import Setting
from spectral_fusion.picture import contact_sheet

CELL = 128
ALL: tuple[Setting, ...] = ("together", "regions", "places")
EACH = 2  # pictures of a kind in the upper table


def write_sheet(evaluation: Evaluation, path: str | Path) -> Path:
    """Write the contact sheet of an evaluation's first method as PNG."""
    with atomic_file(Path(path)) as part:
        draw_sheet(evaluation).save(part, "PNG")
    return Path(path)


def draw_sheet(evaluation: Evaluation) -> Image.Image:
    """Above, a row for each concept: photos, alone, fused. Below, all in one picture, in each way of doing that."""
    method = evaluation.methods[0]

    def drawn(setting: Setting, concept: str | None, count: int) -> list[Image.Image]:
        found = [d.image for d in method.drawings if d.setting == setting and d.concept == concept]
        return spaced(found, count)

    rows = [
        [*spaced(subject.photos, EACH), *drawn("alone", subject.name, EACH), *drawn("fused", subject.name, EACH)]
        for subject in evaluation.subjects
    ]
    labels = [name for name in ("photos", "alone", "fused") for name in (name, "")]
    names = [subject.name for subject in evaluation.subjects]
    upper = contact_sheet([cells(row) for row in rows], names, labels)
    crowd = [setting for setting in ALL if any(d.setting == setting for d in method.drawings)]
    lower = contact_sheet([cells(drawn(setting, None, 3 * EACH)) for setting in crowd], list(crowd), ["all concepts"])
    sheet = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), "white")
    sheet.paste(upper, (0, 0))
    sheet.paste(lower, (0, upper.height))
    return sheet


def spaced(images: Sequence[Image.Image], count: int) -> list[Image.Image]:
    """Up to `count` of the pictures, evenly spread, so that they differ in prompt."""
    step = max(1, len(images) // count)
    return list(images[::step])[:count]


def cells(images: Sequence[Image.Image]) -> list[Image.Image]:
    """The pictures at the size of a cell; enlarged ones keep their pixels sharp."""
    return [
        image.resize((CELL, CELL), Image.Resampling.NEAREST if image.width <= CELL else Image.Resampling.LANCZOS)
        for image in images
    ]
