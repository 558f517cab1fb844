"""The canvas that boxes are drawn on: an empty picture of the right shape, and boxes in its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spectral_fusion_app.draft import Box

LONGEST = 480
SHADES = (226, 206)
# The canvas colours its boxes in this order by itself; page.css has them too, for the boxes' prompts.
COLORS = [
    (255, 168, 77),
    (92, 172, 238),
    (255, 99, 71),
    (118, 238, 118),
    (255, 145, 164),
    (0, 191, 255),
    (255, 218, 185),
    (255, 69, 0),
]


def blank(width: float, height: float) -> np.ndarray:
    """(height, width, 3) of grey with lines at the thirds, its longest edge `LONGEST` pixels."""
    scale = LONGEST / max(width, height, 1)
    rows, columns = max(16, round(height * scale)), max(16, round(width * scale))
    picture = np.full((rows, columns, 3), SHADES[0], np.uint8)
    for third in (1, 2):
        picture[round(rows * third / 3)] = SHADES[1]
        picture[:, round(columns * third / 3)] = SHADES[1]
    return picture


def canvas_value(width: float, height: float, boxes: Sequence[Box] = ()) -> dict[str, Any]:
    """What the canvas shows. boxes: fractions of the picture."""
    picture = blank(width, height)
    rows, columns = picture.shape[:2]
    return {
        "image": picture,
        "boxes": [
            {
                "xmin": round(left * columns),
                "ymin": round(top * rows),
                "xmax": round(right * columns),
                "ymax": round(bottom * rows),
                "label": str(number + 1),
                "color": COLORS[number % len(COLORS)],
            }
            for number, (left, top, right, bottom) in enumerate(boxes)
        ],
    }


def drawn_boxes(value: dict[str, Any] | None) -> list[tuple[Box, int]]:
    """The boxes on the canvas as fractions of the picture, cut at its edges, and the numbers of their colours.

    Those without area, such as one that has just been begun, are left out.
    """
    if not value or value.get("image") is None:
        return []
    rows, columns = np.asarray(value["image"]).shape[:2]
    boxes = []
    for box in value.get("boxes") or []:
        left, right = (min(max(float(box[side]) / columns, 0.0), 1.0) for side in ("xmin", "xmax"))
        top, bottom = (min(max(float(box[side]) / rows, 0.0), 1.0) for side in ("ymin", "ymax"))
        if left < right and top < bottom:
            color = COLORS.index(box["color"]) if box["color"] in COLORS else 0
            boxes.append(((round(left, 4), round(top, 4), round(right, 4), round(bottom, 4)), color))
    return boxes
