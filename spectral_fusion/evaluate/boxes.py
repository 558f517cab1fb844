"""Where subjects stand in a picture, and cutting them out."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from spectral_fusion.toybox.world import LAYOUTS

GROUND = 0.885  # height of the line that subjects stand on, from the top
ROOM = 0.42  # twice this, over their number, is the height of more subjects than toybox's scenes hold


class Box(NamedTuple):
    """A rectangle in parts of the picture, from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


def standing_boxes(count: int) -> list[Box]:
    """Squares for `count` subjects side by side on the ground, left to right, as toybox's scenes place them."""
    centres, half = LAYOUTS.get(count) or (tuple((place + 0.5) / count for place in range(count)), ROOM / count)
    return [Box(x - half, GROUND - 2 * half, x + half, GROUND) for x in centres]


def region_boxes(count: int) -> list[Box]:
    """The part of the picture that each of `count` subjects may use: its column, from above its head to the bottom."""
    heads = standing_boxes(count)
    return [Box(i / count, max(0.0, box.top - 0.15), (i + 1) / count, 1.0) for i, box in enumerate(heads)]


def crop_square(picture: Image.Image, box: Box, margin: float = 0.25) -> Image.Image:
    """The square round a box, inside the picture; `margin` in parts of half its side."""
    width, height = picture.size
    side = max((box.right - box.left) * width, (box.bottom - box.top) * height)
    half = min(side * (1 + margin), width, height) / 2
    x = min(max((box.left + box.right) / 2 * width, half), width - half)
    y = min(max((box.top + box.bottom) / 2 * height, half), height - half)
    return picture.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
