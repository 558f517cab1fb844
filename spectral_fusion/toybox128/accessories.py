"""What things wear: hats and the like, in the unit coordinates of the wearer."""

from __future__ import annotations

from functools import lru_cache

from spectral_fusion.toybox128.parts import Part, Shape, bar, box, disc, polygon


@lru_cache(maxsize=4096)
def accessory_parts(shape: Shape, name: str) -> tuple[Part, ...]:
    """The parts of an accessory on a shape, painted in order. Those of role "body" take the accessory's colour."""
    return _MAKERS[name](shape)


def _hat(shape: Shape) -> tuple[Part, ...]:
    x, y, w = shape.hat
    return box(x - w, y - 0.1, x + w, y + 0.05), box(x - 0.62 * w, y - 0.52, x + 0.62 * w, y - 0.05)


def _cap(shape: Shape) -> tuple[Part, ...]:
    x, y, w = shape.hat
    right = [(0.8, 0.05), (0.74, -0.2), (0.4, -0.36)]
    dome = polygon(
        *((x - dx * w, y + dy) for dx, dy in right), (x, y - 0.42), *((x + dx * w, y + dy) for dx, dy in right[::-1])
    )
    return dome, box(x - 1.5 * w, y - 0.04, x, y + 0.1)


def _crown(shape: Shape) -> tuple[Part, ...]:
    x, y, w = shape.hat
    points = [(x - 0.8 * w, y + 0.05), (x - 0.95 * w, y - 0.45), (x - 0.42 * w, y - 0.16), (x, y - 0.5)]
    points += [(x + 0.42 * w, y - 0.16), (x + 0.95 * w, y - 0.45), (x + 0.8 * w, y + 0.05)]
    return (polygon(*points),)


def _scarf(shape: Shape) -> tuple[Part, ...]:
    x, y, w = shape.neck
    return bar(x - w, y, x + w, y, 0.24), box(x + 0.25 * w, y, x + 0.25 * w + 0.26, y + 0.5)


def _bow(shape: Shape) -> tuple[Part, ...]:
    x, y, _ = shape.neck
    wing = [polygon((x, y), (x + s * 0.42, y - 0.24), (x + s * 0.42, y + 0.24)) for s in (-1, 1)]
    return (*wing, disc(x, y, 0.12))


def _badge(shape: Shape) -> tuple[Part, ...]:
    return (disc(*shape.badge),)


def _glasses(shape: Shape) -> tuple[Part, ...]:
    x, y, apart = shape.eyes or (shape.badge[0], shape.badge[1], 0.25)
    radius = max(0.2, 0.92 * apart)
    rims = [disc(x + s * apart, y, radius) for s in (-1, 1)]
    lenses = [disc(x + s * apart, y, radius - 0.1, "light") for s in (-1, 1)]
    pupils = [disc(x + s * apart, y, 0.065, "dark") for s in (-1, 1)]
    return (*rims, *lenses, *pupils)


_MAKERS = {
    "hat": _hat,
    "cap": _cap,
    "crown": _crown,
    "scarf": _scarf,
    "bow": _bow,
    "badge": _badge,
    "glasses": _glasses,
}
