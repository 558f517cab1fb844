"""The outlines of the drawn world's objects, in unit coordinates.

An object lives in the square [-1, 1] x [-1, 1], y pointing down, and stands on y = 1. It is a list of `Part`s, painted
in order. A part's `role` says how it is coloured: "body" takes the object's colour and pattern, "shade" and "tint" a
darker and a lighter version of that colour, any other role is a fixed colour of `FIXED`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Point = tuple[float, float]

FIXED = {
    "dark": (38, 32, 44),
    "light": (250, 246, 236),
    "glass": (186, 226, 244),
    "wood": (120, 78, 46),
    "lamp": (252, 226, 120),
    "nose": (236, 120, 130),
}


@dataclass(frozen=True)
class Part:
    """One painted shape: an "ellipse", "box" (both from two corners), "polygon" or "line" (through points)."""

    kind: str
    points: tuple[Point, ...]
    role: str = "body"
    width: float = 0.0


@dataclass(frozen=True)
class Shape:
    """An object class: its parts, and where accessories go.

    `hat` is (x, y of the brim, half width); `scarf` is (y, half width); `badge` is (x, y, radius), the eye patch of
    whoever has eyes. `wide` is the ratio of width to height in which the unit square is drawn.
    """

    parts: tuple[Part, ...]
    hat: tuple[float, float, float]
    scarf: tuple[float, float]
    badge: tuple[float, float, float]
    wide: float = 1.0
    silhouette: tuple[Part, ...] = field(init=False)

    def __post_init__(self) -> None:
        solid = tuple(part for part in self.parts if part.role in ("body", "shade", "tint", "wood", "light"))
        object.__setattr__(self, "silhouette", solid)


def _ellipse(x0: float, y0: float, x1: float, y1: float, role: str = "body") -> Part:
    return Part("ellipse", ((x0, y0), (x1, y1)), role)


def _box(x0: float, y0: float, x1: float, y1: float, role: str = "body") -> Part:
    return Part("box", ((x0, y0), (x1, y1)), role)


def _polygon(*points: Point, role: str = "body") -> Part:
    return Part("polygon", points, role)


def _line(*points: Point, role: str = "dark", width: float = 0.07) -> Part:
    return Part("line", points, role, width)


def _eyes(x: float, y: float, radius: float = 0.1) -> tuple[Part, ...]:
    return tuple(_ellipse(s * x - radius, y - radius, s * x + radius, y + radius, "dark") for s in (-1, 1))


SHAPES: dict[str, Shape] = {
    "cat": Shape(
        (
            _line((0.45, 0.85), (0.85, 0.75), (0.9, 0.25), role="body", width=0.2),
            _ellipse(-0.58, -0.05, 0.58, 1.0),
            _polygon((-0.66, -0.3), (-0.62, -1.0), (-0.08, -0.72)),
            _polygon((0.66, -0.3), (0.62, -1.0), (0.08, -0.72)),
            _ellipse(-0.7, -0.82, 0.7, 0.2),
            *_eyes(0.3, -0.36),
            _polygon((-0.1, -0.14), (0.1, -0.14), (0.0, 0.0), role="nose"),
            _line((-0.3, -0.05), (-0.85, -0.12), width=0.04),
            _line((0.3, -0.05), (0.85, -0.12), width=0.04),
            _line((-0.14, 0.98), (-0.14, 0.68), width=0.05),
            _line((0.14, 0.98), (0.14, 0.68), width=0.05),
        ),
        hat=(0.0, -0.7, 0.42),
        scarf=(0.2, 0.52),
        badge=(-0.3, -0.36, 0.2),
    ),
    "dog": Shape(
        (
            _ellipse(-0.5, 0.0, 0.5, 1.0),
            _ellipse(-0.46, -0.92, 0.46, 0.24),
            _ellipse(-0.88, -0.86, -0.4, 0.16, "shade"),
            _ellipse(0.4, -0.86, 0.88, 0.16, "shade"),
            *_eyes(0.2, -0.44),
            _ellipse(-0.32, -0.26, 0.32, 0.2, "light"),
            _ellipse(-0.14, -0.26, 0.14, -0.04, "dark"),
            _line((0.0, -0.1), (0.0, 0.08), width=0.05),
            _ellipse(-0.52, 0.78, -0.06, 1.0, "tint"),
            _ellipse(0.06, 0.78, 0.52, 1.0, "tint"),
        ),
        hat=(0.0, -0.76, 0.42),
        scarf=(0.24, 0.46),
        badge=(-0.2, -0.44, 0.19),
    ),
    "car": Shape(
        (
            _polygon((-0.62, 0.05), (-0.4, -0.5), (0.36, -0.5), (0.66, 0.05)),
            _polygon((-0.46, 0.02), (-0.3, -0.36), (-0.04, -0.36), (-0.04, 0.02), role="glass"),
            _polygon((0.08, 0.02), (0.08, -0.36), (0.28, -0.36), (0.48, 0.02), role="glass"),
            _polygon((-1.0, 0.7), (-1.0, 0.12), (-0.85, 0.0), (0.8, 0.0), (1.0, 0.25), (1.0, 0.7)),
            _ellipse(0.8, 0.2, 1.0, 0.42, "lamp"),
            _ellipse(-0.8, 0.42, -0.22, 1.0, "dark"),
            _ellipse(0.24, 0.42, 0.82, 1.0, "dark"),
            _ellipse(-0.64, 0.58, -0.38, 0.84, "light"),
            _ellipse(0.4, 0.58, 0.66, 0.84, "light"),
        ),
        hat=(0.0, -0.46, 0.4),
        scarf=(0.1, 0.9),
        badge=(0.0, 0.36, 0.2),
        wide=1.15,
    ),
    "house": Shape(
        (
            _box(-0.76, -0.2, 0.76, 1.0),
            _polygon((-1.0, -0.15), (0.0, -1.0), (1.0, -0.15), role="shade"),
            _box(-0.2, 0.35, 0.2, 1.0, "wood"),
            _box(-0.62, 0.05, -0.3, 0.38, "lamp"),
            _box(0.3, 0.05, 0.62, 0.38, "lamp"),
        ),
        hat=(0.0, -0.72, 0.38),
        scarf=(0.0, 0.76),
        badge=(0.0, -0.45, 0.2),
    ),
    "tree": Shape(
        (
            _box(-0.18, 0.3, 0.18, 1.0, "wood"),
            _ellipse(-0.95, -0.35, 0.1, 0.5),
            _ellipse(-0.1, -0.35, 0.95, 0.5),
            _ellipse(-0.65, -1.0, 0.65, 0.25),
        ),
        hat=(0.0, -0.82, 0.4),
        scarf=(0.2, 0.72),
        badge=(0.0, -0.3, 0.22),
    ),
    "ball": Shape(
        (
            _ellipse(-0.9, -0.8, 0.9, 1.0),
            _ellipse(-0.55, -0.5, -0.1, -0.1, "light"),
            _line((-0.86, 0.25), (-0.4, 0.42), (0.0, 0.47), (0.4, 0.42), (0.86, 0.25), role="shade", width=0.12),
        ),
        hat=(0.0, -0.66, 0.44),
        scarf=(0.3, 0.8),
        badge=(0.32, -0.2, 0.24),
    ),
    "robot": Shape(
        (
            _line((0.0, -0.75), (0.0, -0.95), width=0.08),
            _ellipse(-0.1, -1.0, 0.1, -0.84, "lamp"),
            _box(-0.5, 0.7, -0.12, 1.0, "shade"),
            _box(0.12, 0.7, 0.5, 1.0, "shade"),
            _box(-0.88, 0.02, -0.5, 0.5, "shade"),
            _box(0.5, 0.02, 0.88, 0.5, "shade"),
            _box(-0.58, -0.08, 0.58, 0.8),
            _box(-0.5, -0.8, 0.5, -0.12),
            _ellipse(-0.36, -0.6, -0.08, -0.32, "lamp"),
            _ellipse(0.08, -0.6, 0.36, -0.32, "lamp"),
            _box(-0.3, 0.14, 0.3, 0.5, "dark"),
        ),
        hat=(0.0, -0.74, 0.44),
        scarf=(-0.08, 0.56),
        badge=(-0.22, -0.46, 0.19),
    ),
    "mug": Shape(
        (
            _ellipse(0.3, -0.4, 1.0, 0.6),
            _ellipse(0.48, -0.18, 0.8, 0.38, "light"),
            _box(-0.75, -0.6, 0.6, 0.8),
            _ellipse(-0.75, 0.6, 0.6, 1.0),
            _ellipse(-0.75, -0.82, 0.6, -0.38, "shade"),
            _ellipse(-0.58, -0.72, 0.43, -0.48, "dark"),
        ),
        hat=(-0.08, -0.66, 0.42),
        scarf=(0.3, 0.66),
        badge=(-0.1, 0.1, 0.24),
    ),
    "fish": Shape(
        (
            _polygon((0.4, 0.1), (1.0, -0.5), (1.0, 0.7), role="shade"),
            _polygon((-0.3, -0.3), (0.1, -0.85), (0.4, -0.2), role="shade"),
            _ellipse(-1.0, -0.5, 0.62, 0.7),
            _polygon((-0.15, 0.2), (0.28, 0.05), (0.24, 0.45), role="shade"),
            _ellipse(-0.76, -0.22, -0.42, 0.12, "light"),
            _ellipse(-0.68, -0.14, -0.5, 0.04, "dark"),
            _line((-0.9, 0.3), (-0.62, 0.34), width=0.06),
        ),
        hat=(-0.3, -0.42, 0.4),
        scarf=(0.58, 0.3),
        badge=(-0.58, -0.05, 0.24),
        wide=1.15,
    ),
    "boat": Shape(
        (
            _line((0.0, 0.4), (0.0, -1.0), role="wood", width=0.1),
            _polygon((0.08, -0.95), (0.08, 0.2), (0.85, 0.2), role="light"),
            _polygon((-0.08, -0.7), (-0.08, 0.2), (-0.62, 0.2), role="tint"),
            _polygon((-1.0, 0.35), (1.0, 0.35), (0.68, 1.0), (-0.66, 1.0)),
        ),
        hat=(0.0, -0.8, 0.36),
        scarf=(0.44, 0.9),
        badge=(0.0, 0.68, 0.2),
        wide=1.1,
    ),
}
