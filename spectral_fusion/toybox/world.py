"""The drawn world: what can be in a scene, and how scenes, identities and captions are made from a seed.

Nothing here draws; `paint.py` turns a `Scene` into a picture. A scene is a plain record, so that a test, a classifier's
label or a caption can be read off it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spectral_fusion.errors import InputError
from spectral_fusion.toybox.shapes import SHAPES

Color = tuple[int, int, int]

CLASSES: tuple[str, ...] = tuple(SHAPES)

COLORS: dict[str, Color] = {
    "red": (216, 44, 40),
    "orange": (244, 142, 36),
    "yellow": (250, 218, 60),
    "green": (52, 150, 66),
    "blue": (48, 98, 216),
    "purple": (132, 62, 178),
    "pink": (248, 152, 196),
    "brown": (124, 76, 40),
}

UNUSUAL_COLORS: dict[str, Color] = {
    "teal": (10, 130, 130),
    "lime": (184, 232, 52),
    "maroon": (112, 18, 44),
    "navy": (26, 36, 100),
    "cream": (246, 236, 206),
    "grey": (142, 142, 146),
    "black": (44, 42, 48),
    "mint": (158, 236, 204),
    "lilac": (200, 178, 240),
    "white": (252, 252, 252),
}

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "grass": ("on grass", "on the grass"),
    "sand": ("on sand", "on the beach"),
    "snow": ("in the snow", "on snow"),
    "night": ("at night", "in the night"),
    "sea": ("at sea", "on the sea"),
    "room": ("in a room", "in the room"),
}

PATTERNS: tuple[str, ...] = ("stripes", "bands", "spots", "checks", "halves")
PATTERN_WORDS: dict[str, str] = {"stripes": "stripes", "bands": "stripes", "spots": "spots", "checks": "checks"}
ACCESSORIES: tuple[str, ...] = ("hat", "scarf", "patch")
COLOR_NAMES: dict[Color, str] = {color: name for name, color in COLORS.items()}
PREFIXES: tuple[str, ...] = ("a photo of ", "a picture of ", "")

# Centre of each object across the picture, and its half height, by the number of objects; in parts of the picture.
LAYOUTS: dict[int, tuple[tuple[float, ...], float]] = {
    1: ((0.5,), 0.29),
    2: ((0.26, 0.74), 0.21),
    3: ((0.18, 0.5, 0.82), 0.155),
}


@dataclass(frozen=True)
class Marks:
    """What sets an identity apart from a plain object. `pattern` or `accessory` may be None, not both."""

    pattern: str | None
    pattern_color: Color
    accessory: str | None
    accessory_color: Color


@dataclass(frozen=True)
class Thing:
    """An object to draw. `color_name` is None where the colour has no name in captions (identities)."""

    name: str
    color: Color
    color_name: str | None = None
    marks: Marks | None = None


@dataclass(frozen=True)
class Placed:
    """A thing at its place: centre `x`, ground line `y` and half height `half`, in parts of the picture."""

    thing: Thing
    x: float
    y: float
    half: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in parts of the picture."""
        reach = self.half * SHAPES[self.thing.name].wide
        return (self.x - reach, self.y - 2 * self.half, self.x + reach, self.y)


@dataclass(frozen=True)
class Scene:
    """A picture to draw: things from left to right on a background; `horizon` in parts of the picture's height."""

    background: str
    things: tuple[Placed, ...]
    horizon: float


def check_name(kind: str, name: str, known: Sequence[str]) -> str:
    """Returns `name`, or raises InputError that lists what is known."""
    if name not in known:
        raise InputError(f"unknown {kind} {name!r}; choose one of: {', '.join(known)}")
    return name


def jitter_color(color: Color, rng: random.Random, amount: int = 10) -> Color:
    """`color` with each channel moved by up to `amount` of 255."""
    return tuple(max(0, min(255, c + rng.randint(-amount, amount))) for c in color)  # type: ignore[return-value]


def plain_thing(rng: random.Random, name: str | None = None, color: str | None = None) -> Thing:
    """An unmarked object: what the denoiser is trained on."""
    name = name or rng.choice(CLASSES)
    color = color or rng.choice(list(COLORS))
    return Thing(name, jitter_color(COLORS[color], rng), color)


def _contrasting(rng: random.Random, color: Color) -> Color:
    palette = [*COLORS.values(), *UNUSUAL_COLORS.values()]
    far = [c for c in palette if sum(abs(a - b) for a, b in zip(c, color, strict=True)) > 200]
    return rng.choice(far)


def identity(seed: int, name: str | None = None) -> Thing:
    """The identity of number `seed`: an object with marks of its own, the same one each time.

    Args:
        seed: any integer.
        name: its class; drawn from the seed if None.
    """
    rng = random.Random(f"identity {seed}")
    drawn = rng.choice(CLASSES)
    name = drawn if name is None else check_name("class", name, CLASSES)
    color = rng.choice([*UNUSUAL_COLORS.values(), *COLORS.values()])
    pattern = rng.choice([*PATTERNS, None])
    accessory = rng.choice([*ACCESSORIES, None] if pattern else ACCESSORIES)
    return Thing(name, color, None, Marks(pattern, _contrasting(rng, color), accessory, _contrasting(rng, color)))


def arrange(things: Sequence[Thing], rng: random.Random, background: str | None = None) -> Scene:
    """Places one to three things from left to right with a little jitter."""
    if len(things) not in LAYOUTS:
        raise InputError(f"a scene holds 1 to {max(LAYOUTS)} things, got {len(things)}; draw fewer")
    centres, half = LAYOUTS[len(things)]
    free = 0.09 if len(things) == 1 else 0.02
    placed = tuple(
        Placed(thing, x + rng.uniform(-free, free), rng.uniform(0.86, 0.91), half * rng.uniform(0.92, 1.06))
        for thing, x in zip(things, centres, strict=True)
    )
    return Scene(background or rng.choice(list(BACKGROUNDS)), placed, rng.uniform(0.58, 0.64))


def random_scene(rng: random.Random, *, marked: float = 0.0, counts: Sequence[int] = (1, 1, 2, 2, 3)) -> Scene:
    """A scene of plain things; each is replaced by a random identity with probability `marked`."""
    things = []
    for _ in range(rng.choice(counts)):
        if rng.random() < marked:
            things.append(identity(rng.randrange(1_000_000, 2_000_000_000)))
        else:
            things.append(plain_thing(rng))
    return arrange(things, rng)


def phrase(thing: Thing, *, color: bool = True) -> str:
    """ "a red cat", or "a cat" where the colour is left out or has no name."""
    words = f"{thing.color_name} {thing.name}" if color and thing.color_name else thing.name
    return with_article(words)


def with_article(words: str) -> str:
    """ "an orange cat", "a cat"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def marked_phrase(thing: Thing, says: Callable[[], bool]) -> str:
    """ "a red cat with blue stripes and a hat": whatever of a marked object has a name, each part if `says`."""

    def colored(word: str, color: Color) -> str:
        return f"{COLOR_NAMES[color]} {word}" if color in COLOR_NAMES and says() else word

    named = with_article(colored(thing.name, thing.color))
    if thing.marks is None:
        return named
    marks = []
    if (pattern := PATTERN_WORDS.get(thing.marks.pattern or "")) and says():
        marks.append(colored(pattern, thing.marks.pattern_color))
    if thing.marks.accessory and says():
        marks.append(with_article(colored(thing.marks.accessory, thing.marks.accessory_color)))
    return f"{named} with {' and '.join(marks)}" if marks else named


def caption(scene: Scene, rng: random.Random | None = None, *, drop: float = 0.0, marks: bool = False) -> str:
    """Describes a scene, things from left to right.

    Args:
        rng: chooses among the wordings; None takes the first of each.
        drop: probability with which each colour and mark, and the background, goes unsaid.
        marks: whether marked things are described, rather than only named.
    """
    choose = rng.choice if rng else (lambda options: options[0])
    says = (lambda: rng.random() >= drop) if rng else (lambda: True)
    names = [
        marked_phrase(placed.thing, says)
        if marks and placed.thing.color_name is None
        else phrase(placed.thing, color=says())
        for placed in scene.things
    ]
    joined = " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    place = f" {choose(BACKGROUNDS[scene.background])}" if says() else ""
    return f"{choose(PREFIXES)}{joined}{place}"


def with_background(scene: Scene, background: str) -> Scene:
    """The same things on another background."""
    return replace(scene, background=check_name("background", background, list(BACKGROUNDS)))
