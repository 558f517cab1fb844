"""Where things stand: one to four in a scene, in a row or in two, near and far, overlapping a little."""

from __future__ import annotations

import random
from collections.abc import Sequence

from spectral_fusion.errors import InputError
from spectral_fusion.toybox128.world import BACKGROUNDS, VARIANTS, Placed, Scene, Thing, any_thing, poses_of, shape_of


def place(thing: Thing, x: float, y: float, half: float, rng: random.Random) -> Placed:
    """A thing at a place, in a pose, turned and tilted by chance."""
    return Placed(thing, x, y, half, rng.choice(poses_of(thing.name)), rng.random() < 0.5, rng.uniform(-6, 6))


GROUND = 0.95  # height of the line that things side by side stand on, from the top

# By the number of things: the least and the largest half height of each, in parts of the picture.
SIZES: dict[int, tuple[float, float]] = {1: (0.16, 0.38), 2: (0.15, 0.29), 3: (0.13, 0.22), 4: (0.11, 0.17)}


def arrange(things: Sequence[Thing], rng: random.Random, background: str | None = None, *, deep: float = 0.3) -> Scene:
    """Places one to four things from left to right, near ones lower, overlapping a little at most.

    Args:
        deep: probability with which two things stand one behind the other; three stand in two rows twice as often.
    """
    if len(things) not in SIZES:
        raise InputError(f"a scene holds 1 to {max(SIZES)} things, got {len(things)}; draw fewer")
    background = background or rng.choice(list(BACKGROUNDS))
    if len(things) == 1:
        layout = _alone
    elif len(things) == 2 and rng.random() < deep:
        layout = _one_behind
    elif len(things) > 2 and rng.random() < 2.3 * deep:
        layout = _staggered
    else:
        layout = _in_a_row
    for _ in range(6):
        placed = layout(things, rng)
        if hidden(placed) < 0.3:
            break
    return Scene(background, tuple(placed), rng.randrange(VARIANTS))


def hidden(things: Sequence[Placed]) -> float:
    """The largest part of any thing's box that the box of one nearer thing hides."""
    most = 0.0
    for near in things:
        a = near.box
        for far in (p for p in things if p.y < near.y):
            b = far.box
            wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            if wide > 0 and high > 0:
                most = max(most, wide * high / ((b[2] - b[0]) * (b[3] - b[1])))
    return most


def _ground(half: float, largest: float, rng: random.Random) -> float:
    """The ground line of a thing: the smaller, the farther, the higher."""
    return 0.97 - 0.55 * (largest - half) * rng.uniform(0.6, 1.0) - rng.uniform(0.0, 0.05)


def _alone(things: Sequence[Thing], rng: random.Random) -> list[Placed]:
    (thing,) = things
    least, largest = SIZES[1]
    half = rng.uniform(least, largest) if rng.random() < 0.4 else rng.uniform(0.26, largest)
    wide = shape_of(thing).wide
    margin = min(0.5, half * wide * 0.92)
    return [place(thing, rng.uniform(margin, 1 - margin), _ground(half, largest, rng), half, rng)]


def _in_a_row(things: Sequence[Thing], rng: random.Random) -> list[Placed]:
    """Neighbouring columns of unequal width, each thing about as wide as its column."""
    least, largest = SIZES[len(things)]
    weights = [shape_of(thing).wide * rng.uniform(0.85, 1.2) for thing in things]
    unit = 1 / sum(weights)
    placed, left = [], 0.0
    for thing, weight in zip(things, weights, strict=True):
        width = weight * unit
        half = min(largest, width / 2 / shape_of(thing).wide * rng.uniform(0.85, 1.12))
        half = max(least, half * (rng.uniform(0.7, 1.0) if rng.random() < 0.4 else 1.0))
        slack = max(0.0, width / 2 - half * shape_of(thing).wide)
        x = left + width / 2 + rng.uniform(-slack, slack)
        placed.append(place(thing, x, _ground(half, largest, rng), half, rng))
        left += width
    return placed


def _one_behind(things: Sequence[Thing], rng: random.Random) -> list[Placed]:
    """Two things of which the far one is partly hidden by the near one, or stands clear of it."""
    near = rng.randrange(2)
    half = rng.uniform(0.22, 0.29)
    far = half * rng.uniform(0.6, 0.85)
    halves = [half, far] if near == 0 else [far, half]
    reach = [h * shape_of(thing).wide for h, thing in zip(halves, things, strict=True)]
    apart = sum(reach) * rng.uniform(0.62, 0.95)
    middle = rng.uniform(reach[0] * 0.95, max(reach[0] * 0.95, 1 - apart - reach[1] * 0.95))
    y = rng.uniform(0.93, 0.97)
    lines = [y if i == near else y - rng.uniform(0.08, 0.14) for i in range(2)]
    return [place(thing, middle + apart * i, lines[i], halves[i], rng) for i, thing in enumerate(things)]


def _staggered(things: Sequence[Thing], rng: random.Random) -> list[Placed]:
    """Two rows, so that three or four things are nearly as large as two: every other one stands in front."""
    first, pitch = rng.randrange(2), 1 / len(things)
    placed = []
    for i, thing in enumerate(things):
        near = (i + first) % 2 == 0
        wide = shape_of(thing).wide
        half = min((0.86 if near else 0.68) * pitch / wide, 0.24 if near else 0.19) * rng.uniform(0.85, 1.05)
        margin = min(0.5, half * wide * 0.92)
        x = min(max((i + 0.5) * pitch + rng.uniform(-0.03, 0.03), margin), 1 - margin)
        placed.append(place(thing, x, rng.uniform(0.93, 0.97) if near else rng.uniform(0.66, 0.74), half, rng))
    return placed


def standing_boxes(count: int) -> list[tuple[float, float, float, float]]:
    """Squares (left, top, right, bottom), in parts of the picture, for `count` subjects side by side on the ground."""
    half = min(0.34, 0.5 / count)
    centres = [(place + 0.5) / count for place in range(count)]
    return [(x - half, GROUND - 2 * half, x + half, GROUND) for x in centres]


def random_scene(
    rng: random.Random, *, marked: float = 0.0, counts: Sequence[int] = (1, 1, 1, 2, 2, 2, 3, 3, 4)
) -> Scene:
    """A scene of plain things; each is replaced by a random identity with probability `marked`."""
    return arrange([any_thing(rng, marked=marked) for _ in range(rng.choice(counts))], rng)
