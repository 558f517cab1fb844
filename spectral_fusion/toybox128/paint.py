"""Draws a `Scene` with Pillow: at 384 px, reduced to 128 px, so that edges are smooth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from spectral_fusion.toybox128.accessories import accessory_parts
from spectral_fusion.toybox128.backgrounds import CANVAS, FACTOR, SIZE, background
from spectral_fusion.toybox128.parts import Part
from spectral_fusion.toybox128.world import Color, Marks, Placed, Scene, in_front

OUTLINE = 3.4  # pixels of the canvas: about one pixel of the picture
CELLS = SIZE // 8  # across the grid of the latents

FIXED: dict[str, Color] = {
    "dark": (38, 32, 44),
    "light": (250, 246, 236),
    "glass": (186, 226, 244),
    "wood": (120, 78, 46),
    "lamp": (252, 226, 120),
    "nose": (236, 120, 130),
    "leaf": (60, 140, 62),
    "beak": (244, 166, 52),
    "steel": (200, 202, 208),
}


class Frame:
    """Maps the unit square of one placed thing onto a canvas; unit lengths grow by `scale`."""

    def __init__(self, placed: Placed, canvas: int = CANVAS) -> None:
        self.scale = placed.half * canvas
        turn = math.radians(placed.tilt)
        across = self.scale * placed.shape.wide * (-1 if placed.mirrored else 1)
        cos, sin = math.cos(turn), math.sin(turn)
        self.matrix = np.array([[across * cos, across * sin], [-self.scale * sin, self.scale * cos]])
        self.centre = np.array([placed.x * canvas, placed.y * canvas - self.scale])
        # Growing is the same in all directions on the canvas, whatever the thing's proportions.
        self.outward = np.array(
            [[(-1 if placed.mirrored else 1) * cos, (-1 if placed.mirrored else 1) * sin], [-sin, cos]]
        )

    def points(self, part: Part, grow: float = 0.0) -> list[float]:
        """The corners of a part on the canvas, x and y in turn, moved outwards by `grow` pixels."""
        corners = part.points @ self.matrix + self.centre
        if grow:
            corners += part.outward @ self.outward * grow
        return corners.ravel().tolist()


def draw_scene(scene: Scene) -> Image.Image:
    """The picture of a scene, RGB, 128 x 128."""
    canvas = background(scene.background, scene.variant).copy()
    for placed in in_front(scene):
        _draw_thing(canvas, placed)
    return canvas.reduce(FACTOR)


def draw_mask(scene: Scene, index: int) -> Image.Image:
    """Where the thing of that index is: "L", 128 x 128, 255 inside, its accessories and outline included.

    What nearer things hide is no part of it.
    """
    canvas = Image.new("L", (CANVAS, CANVAS), 0)
    draw = ImageDraw.Draw(canvas)
    for placed in in_front(scene):
        _cover(draw, Frame(placed), placed, 255 if placed is scene.things[index] else 0, OUTLINE)
    return canvas.reduce(FACTOR)


def draw_cells(scene: Scene) -> np.ndarray:
    """(16, 16): for each cell of the latents 1 + the index of the thing in its middle, 0 for the background."""
    small = 3 * CELLS
    canvas = Image.new("L", (small, small), 0)
    draw = ImageDraw.Draw(canvas)
    for placed in in_front(scene):
        _cover(draw, Frame(placed, small), placed, 1 + scene.things.index(placed), 0.0)
    return np.asarray(canvas)[1::3, 1::3].copy()


def _cover(draw: ImageDraw.ImageDraw, frame: Frame, placed: Placed, value: int, grow: float) -> None:
    worn = [part for name, _ in _accessories(placed) for part in accessory_parts(placed.shape, name)]
    for part in (*placed.shape.silhouette, *worn):
        draw.polygon(frame.points(part, grow), fill=value)


def _accessories(placed: Placed) -> Sequence[tuple[str, Color]]:
    return placed.thing.marks.accessories if placed.thing.marks else ()


def _draw_thing(canvas: Image.Image, placed: Placed) -> None:
    thing, shape, frame = placed.thing, placed.shape, Frame(placed)
    draw = ImageDraw.Draw(canvas)
    for part in shape.silhouette:
        draw.polygon(frame.points(part, OUTLINE), fill=FIXED["dark"])
    colors = {"body": thing.color, "shade": mix(thing.color, 0.68), "tint": mix(thing.color, 1.3), **FIXED}
    if thing.look:
        colors |= {"hair": thing.look.hair, "skin": thing.look.skin, "legs": thing.look.legs}
    texture = _Texture(frame, placed, thing.marks) if thing.marks and thing.marks.pattern else None
    for part in shape.parts:
        if part.role == "body" and texture:
            texture.fill(canvas, frame.points(part))
        else:
            draw.polygon(frame.points(part), fill=colors[part.role])
    for name, color in _accessories(placed):
        parts = accessory_parts(shape, name)
        for part in parts:
            draw.polygon(frame.points(part, OUTLINE), fill=FIXED["dark"])
        for part in parts:
            draw.polygon(frame.points(part), fill=FIXED.get(part.role, color))


def mix(color: Color, factor: float) -> Color:
    """Darker below one, lighter above: towards white by the part over one."""
    if factor <= 1:
        return tuple(round(c * factor) for c in color)  # type: ignore[return-value]
    return tuple(round(c + (255 - c) * (factor - 1)) for c in color)  # type: ignore[return-value]


class _Texture:
    """The pattern of one thing, painted once over the rectangle that the thing takes."""

    def __init__(self, frame: Frame, placed: Placed, marks: Marks) -> None:
        reach = math.hypot(frame.scale, frame.scale * placed.shape.wide) * 1.05
        self.left, self.top = (int(c - reach) for c in frame.centre)
        side = int(2 * reach) + 2
        self.image = Image.new("RGB", (side, side), placed.thing.color)
        draw = ImageDraw.Draw(self.image)
        offset = np.array([self.left, self.top])
        for corners in _pattern(marks.pattern or ""):
            draw.polygon((corners @ frame.matrix + frame.centre - offset).ravel().tolist(), fill=marks.pattern_color)

    def fill(self, canvas: Image.Image, points: list[float]) -> None:
        """Paints a polygon of the canvas with the pattern."""
        x0, y0 = (max(0, math.floor(min(points[i::2]))) for i in (0, 1))
        x1, y1 = (min(CANVAS, math.ceil(max(points[i::2])) + 1) for i in (0, 1))
        if x1 <= x0 or y1 <= y0:
            return
        mask = Image.new("L", (x1 - x0, y1 - y0), 0)
        ImageDraw.Draw(mask).polygon([c - (x0, y0)[i % 2] for i, c in enumerate(points)], fill=255)
        box = (x0 - self.left, y0 - self.top, x1 - self.left, y1 - self.top)
        canvas.paste(self.image.crop(box), (x0, y0), mask)


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


_STEPS = range(-3, 4)
_ROUND = np.stack([np.cos(np.arange(12) * math.pi / 6), np.sin(np.arange(12) * math.pi / 6)], axis=1)
_SLANT = np.array([[0.8, 0.6], [-0.6, 0.8]])
_PATTERNS: dict[str, list[np.ndarray]] = {
    "stripes": [_box(-1.3, 0.6 * i, 1.3, 0.6 * i + 0.3) for i in _STEPS],
    "bands": [_box(0.6 * i - 0.15, -1.3, 0.6 * i + 0.15, 1.3) for i in _STEPS],
    "diagonals": [_box(-2.0, 0.62 * i, 2.0, 0.62 * i + 0.31) @ _SLANT for i in range(-4, 5)],
    "checks": [
        _box(0.5 * i, 0.5 * j, 0.5 * i + 0.5, 0.5 * j + 0.5) for i in _STEPS for j in _STEPS if (i + j) % 2 == 0
    ],
    "halves": [_box(0.0, -1.3, 1.3, 1.3)],
    "spots": [_ROUND * 0.19 + (0.62 * i + (0.31 if j % 2 else 0.0), 0.5 * j) for i in _STEPS for j in _STEPS],
}


def _pattern(name: str) -> list[np.ndarray]:
    """Polygons, (n, 2), that the pattern paints in its second colour."""
    return _PATTERNS[name]
