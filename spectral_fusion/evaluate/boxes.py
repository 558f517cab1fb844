"""Where subjects stand in a picture, and cutting them out."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from spectral_fusion.base.regions import Box

HEADROOM = 0.07  # above a subject's place, in parts of the picture


def region_boxes(places: Sequence[Box]) -> list[Box]:
    """The part of the picture that each subject may use: its column, from above its place to the bottom."""
    count = len(places)
    return [Box(i / count, max(0.0, place.top - HEADROOM), (i + 1) / count, 1.0) for i, place in enumerate(places)]


def crop_square(picture: Image.Image, box: Box, margin: float = 0.25) -> Image.Image:
    """The square round a box, inside the picture; `margin` in parts of half its side."""
    width, height = picture.size
    side = max((box.right - box.left) * width, (box.bottom - box.top) * height)
    half = min(side * (1 + margin), width, height) / 2
    x = min(max((box.left + box.right) / 2 * width, half), width - half)
    y = min(max((box.top + box.bottom) / 2 * height, half), height - half)
    return picture.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
