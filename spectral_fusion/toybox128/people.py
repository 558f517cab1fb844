"""The people of the drawn world: grown and small, with hair of several cuts, standing or waving."""

from __future__ import annotations

from functools import cache

from spectral_fusion.toybox128.parts import Part, Shape, bar, box, disc, ellipse, eyes, polygon

PEOPLE = ("man", "woman", "boy", "girl")
POSES = ("standing", "waving")
GARMENTS = {"man": "shirt", "woman": "dress", "boy": "shirt", "girl": "dress"}
# Cuts of hair and what captions call them.
CUTS: dict[str, str] = {
    "short": "short hair",
    "long": "long hair",
    "curly": "curly hair",
    "bun": "hair in a bun",
    "pigtails": "hair in pigtails",
}
CUTS_OF: dict[str, tuple[str, ...]] = {
    "man": ("short", "curly", "long"),
    "woman": ("long", "bun", "curly", "short"),
    "boy": ("short", "curly"),
    "girl": ("pigtails", "long", "bun"),
}


@cache
def person(name: str, pose: str, cut: str, beard: bool = False) -> Shape:
    """One of `PEOPLE` in one of `POSES`, its hair cut in one of `CUTS`."""
    small = name in ("boy", "girl")
    chin = 0.02 if small else -0.2  # children have larger heads
    middle, half = (-0.9 + chin) / 2, (chin + 0.9) / 2
    width = 0.64 if small else 0.52
    back, front = _hair(cut, width, middle, half)
    head = ellipse(-width, -0.9, width, chin, "skin")
    face = (
        *eyes(0.0, middle + 0.1 * half, 0.42 * width, 0.095 if small else 0.085),
        bar(-0.3 * width, middle + 0.58 * half, 0.3 * width, middle + 0.58 * half, 0.06, "nose"),
    )
    parts = (
        *back,
        *_limbs(name, pose, chin),
        *_clothes(name, chin),
        head,
        *(_beard(width, middle, half) if beard else ()),
    )
    return Shape(
        (*parts, *face, *front),
        hat=(0.0, -0.72, 0.9 * width),
        neck=(0.0, chin + 0.08, 0.42),
        badge=(0.0, chin + 0.42, 0.2),
        eyes=(0.0, middle + 0.1 * half, 0.42 * width),
        wide=0.72,
    )


def _limbs(name: str, pose: str, chin: float) -> tuple[Part, ...]:
    shoulder = chin + 0.16
    low = (bar(-0.42, shoulder, -0.72, shoulder + 0.42, 0.24), disc(-0.74, shoulder + 0.46, 0.13, "skin"))
    if pose == "waving":
        other = (bar(0.42, shoulder, 0.82, shoulder - 0.4, 0.24), disc(0.86, shoulder - 0.48, 0.13, "skin"))
    else:
        other = (bar(0.42, shoulder, 0.72, shoulder + 0.42, 0.24), disc(0.74, shoulder + 0.46, 0.13, "skin"))
    role = "skin" if name in ("woman", "girl") else "legs"
    legs = tuple(bar(s * 0.22, 0.6, s * 0.22, 0.9, 0.26, role) for s in (-1, 1))
    shoes = tuple(ellipse(s * 0.25 - 0.2, 0.82, s * 0.25 + 0.2, 1.0, "dark") for s in (-1, 1))
    return (*legs, *shoes, *low, *other)


def _clothes(name: str, chin: float) -> tuple[Part, ...]:
    top = chin - 0.04
    neck = polygon((-0.16, top - 0.04), (0.16, top - 0.04), (0.0, top + 0.22), role="skin")
    if name in ("woman", "girl"):
        return polygon((-0.4, top), (0.4, top), (0.36, 0.25), (0.66, 0.76), (-0.66, 0.76), (-0.36, 0.25)), neck
    return box(-0.44, 0.42, 0.44, 0.7, "legs"), polygon((-0.48, top), (0.48, top), (0.46, 0.56), (-0.46, 0.56)), neck


def _beard(width: float, middle: float, half: float) -> tuple[Part, ...]:
    low, w = middle + half, width
    points = [(-w, middle + 0.1 * half), (-0.6 * w, middle + 0.42 * half), (0.6 * w, middle + 0.42 * half)]
    points += [(w, middle + 0.1 * half), (0.8 * w, low - 0.1 * half), (0.35 * w, low + 0.14), (-0.35 * w, low + 0.14)]
    return (polygon(*points, (-0.8 * w, low - 0.1 * half), role="hair"),)


def _hair(cut: str, width: float, middle: float, half: float) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """What is behind the head, and what is over it."""
    w, top, low = width, -0.9, middle + half
    outer = [(1.04, middle - 0.02), (0.98, middle - 0.5 * half), (0.6, top + 0.02)]
    over = [(-x * w, y) for x, y in outer] + [(0.0, top - 0.06)] + [(x * w, y) for x, y in outer[::-1]]
    parting = [(0.7 * w, middle - 0.32 * half), (0.1 * w, middle - 0.42 * half), (-0.7 * w, middle - 0.32 * half)]
    fringe = polygon(*over, *parting, role="hair")
    if cut == "long":
        return (polygon((-1.1 * w, middle - 0.4 * half), (0.0, top - 0.06), (1.1 * w, middle - 0.4 * half),
                        (1.25 * w, low + 0.25), (-1.25 * w, low + 0.25), role="hair"),), (fringe,)  # fmt: skip
    if cut == "bun":
        return (disc(0.0, top - 0.0, 0.42 * w + 0.02, "hair"),), (fringe,)
    if cut == "pigtails":
        return tuple(
            ellipse(s * 1.2 * w - 0.2, middle - 0.1, s * 1.2 * w + 0.2, low + 0.22, "hair") for s in (-1, 1)
        ), (fringe,)
    if cut == "curly":
        spots = ((-1.0, -0.1), (-0.95, -0.6), (-0.55, -0.95), (0.0, -1.05), (0.55, -0.95), (0.95, -0.6), (1.0, -0.1))
        return tuple(disc(x * w, middle + y * half, 0.24, "hair") for x, y in spots), (fringe,)
    return (), (fringe,)
