"""Refine and Upscale: the passes after the first, on a picture that is there."""

from __future__ import annotations

from typing import Any

from spectral_fusion.base.default import DETAIL
from spectral_fusion.errors import InputError

UPSCALE, UPSCALE_STRENGTH = 2.0, 0.4  # where the page asks for nothing else


def finishing(form: dict[str, Any], asked: dict[str, Any], start: str, size: tuple[int, int]) -> dict[str, Any]:
    """The form that does it: begins from the picture as it is, pixel for pixel.

    Args:
        form: of the picture.
        asked: `how`: "refine" or "upscale"; `strength`, `by`; `regions`, where the picture itself has none.
        start: the name that the picture is kept under.
        size: its width and height.

    Raises:
        InputError: it is the sheet of a grid, or has no regions to refine.
    """
    if form["axes"]:
        raise InputError("a sheet of a grid stays as it is; choose one of its pictures")
    one = {**form, "pictures": 1, "width": size[0], "height": size[1]}
    one |= {"start": {"picture": start, "strength": 0.0, "mask": None}, "upscale": 1.0}
    one |= {"detail": 0.0, "composite": 0.0}
    strength = asked.get("strength")
    if asked["how"] == "upscale":
        return one | {
            "upscale": asked.get("by") or UPSCALE,
            "upscale_strength": UPSCALE_STRENGTH if strength is None else strength,
        }
    regions = form["regions"] or asked.get("regions") or []
    if not regions:
        raise InputError("Refine draws the subject of each region again; mark the subjects by regions first")
    return one | {"regions": regions, "detail": DETAIL if strength is None else strength}
