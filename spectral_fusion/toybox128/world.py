"""The drawn world: what can be in a scene, and how things and identities are made from a seed.

Nothing here draws or speaks: `layout.py` places things in a `Scene`, `paint.py` turns it into a picture, `caption.py`
into words. A scene is a plain record, so that a test or a detector's target can be read off it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from spectral_fusion.toybox.world import Color, check_name, jitter_color
from spectral_fusion.toybox128.animals import ANIMALS
from spectral_fusion.toybox128.parts import Shape
from spectral_fusion.toybox128.people import CUTS, CUTS_OF, PEOPLE, POSES, person
from spectral_fusion.toybox128.things import THINGS

SHAPES: dict[str, dict[str, Shape]] = ANIMALS | THINGS
CLASSES: tuple[str, ...] = (*SHAPES, *PEOPLE)

COLORS: dict[str, Color] = {
    "red": (216, 44, 40),
    "orange": (244, 142, 36),
    "yellow": (250, 218, 60),
    "green": (52, 150, 66),
    "blue": (48, 98, 216),
    "purple": (132, 62, 178),
    "pink": (248, 152, 196),
    "brown": (124, 76, 40),
    "black": (52, 48, 56),
    "white": (250, 250, 250),
    "grey": (142, 142, 146),
}
UNUSUAL_COLORS: dict[str, Color] = {
    "teal": (10, 130, 130),
    "lime": (184, 232, 52),
    "maroon": (112, 18, 44),
    "navy": (26, 36, 100),
    "cream": (246, 228, 178),
    "mint": (150, 236, 196),
    "lilac": (196, 170, 244),
    "coral": (255, 128, 104),
}
COLOR_NAMES: dict[Color, str] = {color: name for name, color in COLORS.items()}
HAIR: dict[str, Color] = {
    "black": (44, 36, 40),
    "brown": (106, 62, 34),
    "blond": (240, 204, 104),
    "red": (196, 84, 32),
    "grey": (168, 166, 170),
}
SKIN: tuple[Color, ...] = ((250, 216, 186), (232, 184, 142), (188, 130, 88), (122, 80, 54))
LEGS: tuple[Color, ...] = ((48, 54, 92), (84, 78, 74), (96, 66, 46))

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "grass": ("on grass", "on the grass", "in a meadow"),
    "sand": ("on the beach", "on sand"),
    "snow": ("in the snow", "on snow"),
    "night": ("at night", "in the night"),
    "sea": ("at sea", "on the sea"),
    "room": ("in a room", "in the room"),
    "forest": ("in a forest", "in the forest"),
    "street": ("in a street", "on the street"),
    "mountains": ("in the mountains", "in front of mountains"),
    "desert": ("in the desert", "in a desert"),
    "sunset": ("at sunset", "in the sunset"),
    "kitchen": ("in a kitchen", "in the kitchen"),
}

PATTERNS: tuple[str, ...] = ("stripes", "bands", "diagonals", "spots", "checks", "halves")
ON_TOP: tuple[str, ...] = ("hat", "cap", "crown")
LOWER: tuple[str, ...] = ("scarf", "bow", "badge", "glasses")
ACCESSORIES: tuple[str, ...] = (*ON_TOP, *LOWER)
VARIANTS = 12  # of each background
HELD_OUT = 1_000_000  # identities below this number are never seen in training


@dataclass(frozen=True)
class Marks:
    """What sets an identity apart from a plain object. `accessories` holds pairs of name and colour."""

    pattern: str | None
    pattern_color: Color
    accessories: tuple[tuple[str, Color], ...]


@dataclass(frozen=True)
class Look:
    """What people differ by, besides their clothes. `hair_name` is None where captions have no word for the colour."""

    cut: str
    hair: Color
    hair_name: str | None
    skin: Color
    legs: Color
    beard: bool = False


@dataclass(frozen=True)
class Thing:
    """An object to draw. `color` is a person's clothes; `color_name` is None where captions must not name it."""

    name: str
    color: Color
    color_name: str | None = None
    marks: Marks | None = None
    look: Look | None = None


@dataclass(frozen=True)
class Placed:
    """A thing at its place: centre `x`, ground line `y` and half height `half`, in parts of the picture.

    `tilt` is in degrees, clockwise; `mirrored` swaps left and right.
    """

    thing: Thing
    x: float
    y: float
    half: float
    pose: str = ""
    mirrored: bool = False
    tilt: float = 0.0

    @property
    def shape(self) -> Shape:
        """The outlines of the thing in its pose."""
        return shape_of(self.thing, self.pose)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in parts of the picture."""
        reach = self.half * self.shape.wide
        return (self.x - reach, self.y - 2 * self.half, self.x + reach, self.y)


@dataclass(frozen=True)
class Scene:
    """A picture to draw: things from left to right on a background, of which `variant` chooses the details."""

    background: str
    things: tuple[Placed, ...]
    variant: int = 0


def poses_of(name: str) -> tuple[str, ...]:
    """The poses of a class; the empty string stands for the only one."""
    return POSES if name in PEOPLE else tuple(SHAPES[name])


def shape_of(thing: Thing, pose: str = "") -> Shape:
    """The outlines of a thing; of its usual pose where `pose` is not one of its own."""
    poses = poses_of(thing.name)
    pose = pose if pose in poses else poses[0]
    if thing.name in PEOPLE:
        look = thing.look or Look("short", HAIR["brown"], "brown", SKIN[0], LEGS[0])
        return person(thing.name, pose, look.cut, look.beard)
    return SHAPES[thing.name][pose]


def _look(rng: random.Random, name: str, *, unusual: bool) -> Look:
    cut = rng.choice(list(CUTS) if unusual and rng.random() < 0.3 else CUTS_OF[name])
    hair_name: str | None = rng.choice(list(HAIR))
    hair = HAIR[hair_name or ""]
    if unusual and rng.random() < 0.3:
        hair_name, hair = None, rng.choice(list(UNUSUAL_COLORS.values()))
    beard = name == "man" and rng.random() < (0.4 if unusual else 0.2)
    return Look(cut, jitter_color(hair, rng, 6), hair_name, rng.choice(SKIN), rng.choice(LEGS), beard)


def plain_thing(rng: random.Random, name: str | None = None, color: str | None = None) -> Thing:
    """An object without marks."""
    name = name or rng.choice(CLASSES)
    color = color or rng.choice(list(COLORS))
    look = _look(rng, name, unusual=False) if name in PEOPLE else None
    return Thing(name, jitter_color(COLORS[color], rng), color, None, look)


def far_apart(first: Color, second: Color) -> bool:
    """Whether two colours can be told apart at a glance."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 200


def _contrasting(rng: random.Random, color: Color) -> Color:
    return rng.choice([c for c in (*COLORS.values(), *UNUSUAL_COLORS.values()) if far_apart(c, color)])


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
    look = _look(rng, name, unusual=True) if name in PEOPLE else None
    lower = [word for word in LOWER if word != "glasses" or all(shape_of(_bare(name), p).eyes for p in poses_of(name))]
    worn = [rng.choice([*ON_TOP, None, None]), rng.choice([*lower, None, None])]
    if pattern is None and look is None and not any(worn):
        worn[rng.randrange(2)] = rng.choice(ON_TOP)
    accessories = tuple((word, _contrasting(rng, color)) for word in worn if word)
    return Thing(name, color, None, Marks(pattern, _contrasting(rng, color), accessories), look)


def any_thing(rng: random.Random, *, marked: float) -> Thing:
    """A plain thing, or with probability `marked` an identity that training may see."""
    return identity(rng.randrange(HELD_OUT, 2_000_000_000)) if rng.random() < marked else plain_thing(rng)


def _bare(name: str) -> Thing:
    return Thing(name, (0, 0, 0))


def in_front(scene: Scene) -> list[Placed]:
    """The things in the order in which they are painted: the near ones last."""
    return sorted(scene.things, key=lambda placed: placed.y)
