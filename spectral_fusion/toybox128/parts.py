"""What shapes are made of: polygons in unit coordinates, each with a role that says how it is coloured.

An object lives in the square [-1, 1] x [-1, 1], y pointing down, and stands on y = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

Point = tuple[float, float]
CORNERS = 20  # of the polygon that stands for an ellipse


@dataclass(frozen=True, eq=False)
class Part:
    """One polygon, (n, 2). `outward` holds how far each corner moves when the outline grows by one unit.

    Role "body" takes the object's colour and pattern, "shade" and "tint" a darker and a lighter version of that colour,
    "hair", "skin" and "legs" the colours of a person's look, any other role is a fixed colour.
    """

    points: np.ndarray
    role: str
    outward: np.ndarray


@dataclass(frozen=True, eq=False)
class Shape:
    """An object class in one pose: its parts, and where accessories go.

    Args:
        hat: (x, y of the brim, half width).
        neck: (x, y, half width), where a scarf or a bow sits.
        badge: (x, y, radius).
        eyes: (x of their middle, y, half distance); None where there are none, and no glasses either.
        wide: ratio of width to height in which the unit square is drawn.
    """

    parts: tuple[Part, ...]
    hat: tuple[float, float, float]
    neck: tuple[float, float, float]
    badge: tuple[float, float, float]
    eyes: tuple[float, float, float] | None = None
    wide: float = 1.0
    silhouette: tuple[Part, ...] = field(init=False)

    def __post_init__(self) -> None:
        solid = ("body", "shade", "tint", "wood", "light", "skin", "hair", "legs", "leaf", "beak", "steel")
        object.__setattr__(self, "silhouette", tuple(part for part in self.parts if part.role in solid))


def polygon(*points: Point, role: str = "body") -> Part:
    """Corners in order, either way round."""
    array = np.array(points, dtype=float)
    return Part(array, role, _outward(array))


def ellipse(x0: float, y0: float, x1: float, y1: float, role: str = "body") -> Part:
    """The ellipse inside a rectangle."""
    angles = np.arange(CORNERS) * (2 * math.pi / CORNERS)
    x, y = (x0 + x1) / 2 + (x1 - x0) / 2 * np.cos(angles), (y0 + y1) / 2 + (y1 - y0) / 2 * np.sin(angles)
    return polygon(*zip(x, y, strict=True), role=role)


def disc(x: float, y: float, radius: float, role: str = "body") -> Part:
    """A circle."""
    return ellipse(x - radius, y - radius, x + radius, y + radius, role)


def box(x0: float, y0: float, x1: float, y1: float, role: str = "body") -> Part:
    """A rectangle."""
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1), role=role)


def bar(x0: float, y0: float, x1: float, y1: float, width: float, role: str = "body") -> Part:
    """A line with round ends."""
    along = math.atan2(y1 - y0, x1 - x0)
    turns = np.linspace(math.pi / 2, 3 * math.pi / 2, 7)
    near = [(x0 + width / 2 * math.cos(along + t), y0 + width / 2 * math.sin(along + t)) for t in turns]
    far = [(x1 - width / 2 * math.cos(along + t), y1 - width / 2 * math.sin(along + t)) for t in turns]
    return polygon(*near, *far, role=role)


def eyes(x: float, y: float, apart: float, radius: float = 0.1) -> tuple[Part, ...]:
    """Two dark discs with a light in each."""
    discs = [disc(x + side * apart, y, radius, "dark") for side in (-1, 1)]
    return (
        *discs,
        *(disc(x + side * apart - radius * 0.3, y - radius * 0.35, radius * 0.35, "light") for side in (-1, 1)),
    )


def wheel(x: float, y: float, radius: float) -> tuple[Part, ...]:
    return disc(x, y, radius, "dark"), disc(x, y, radius * 0.45, "steel")


def _outward(points: np.ndarray) -> np.ndarray:
    """(n, 2): the mitre of each corner, pointing out of the polygon and at most 2.5 long."""
    after = np.roll(points, -1, axis=0) - points
    area = float(np.sum(points[:, 0] * np.roll(points[:, 1], -1) - np.roll(points[:, 0], -1) * points[:, 1]))
    normals = np.stack([after[:, 1], -after[:, 0]], axis=1) * (1.0 if area > 0 else -1.0)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    before = np.roll(normals, 1, axis=0)
    middle = normals + before
    middle /= np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-9)
    return middle / np.maximum(np.sum(middle * normals, axis=1, keepdims=True), 0.4)
