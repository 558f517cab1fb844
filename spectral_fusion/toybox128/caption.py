"""Describes scenes in words: what is there, in which colours and marks, and where it stands."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from spectral_fusion.toybox.world import Color, with_article
from spectral_fusion.toybox128.people import CUTS, GARMENTS, PEOPLE
from spectral_fusion.toybox128.world import BACKGROUNDS, COLOR_NAMES, Placed, Scene, Thing

PATTERN_WORDS: dict[str, str] = {
    "stripes": "stripes",
    "bands": "vertical stripes",
    "diagonals": "diagonal stripes",
    "spots": "spots",
    "checks": "checks",
    "halves": "half",
}
POSE_WORDS = ("sitting", "standing", "flying", "waving")
PREFIXES: tuple[str, ...] = ("a photo of ", "a picture of ", "")
FAR, NEAR = 0.2, 0.35  # half heights below and above which a single thing is called far or close
SIDE = 0.36  # of the picture: a single thing left of this is called on the left

Says = Callable[[], bool]


def phrase(thing: Thing, says: Says = lambda: True, *, pose: str = "", marks: bool = False) -> str:
    """ "a red cat with blue stripes and a hat": whatever of a thing has a name, each part if `says`.

    Args:
        pose: named if it is not empty.
        marks: whether the marks and unnamed colours of an identity are described, rather than only its class named.
    """
    described = marks or thing.color_name is not None
    if thing.name in PEOPLE:
        return _person(thing, says, pose, described=described)
    color = _color_word(thing, says) if described else ""
    named = with_article(" ".join(word for word in (pose, color, thing.name) if word))
    worn = [*_pattern(thing, says), *_worn(thing, says)] if described else []
    return f"{named} with {_joined(worn)}" if worn else named


def _person(thing: Thing, says: Says, pose: str, *, described: bool) -> str:
    named = with_article(f"{pose} {thing.name}" if pose else thing.name)
    if not described:
        return named
    worn = [*_hair(thing, says), *_worn(thing, says)]
    if worn:
        named += f" with {_joined(worn)}"
    color, pattern = _color_word(thing, says), _pattern(thing, says)
    if color or pattern:
        named += f" in {with_article(f'{color} {GARMENTS[thing.name]}'.strip())}"
        named += f" with {pattern[0]}" if pattern else ""
    return named


def _color_word(thing: Thing, says: Says) -> str:
    name = thing.color_name or COLOR_NAMES.get(thing.color, "")
    return name if name and says() else ""


def _colored(word: str, color: Color, says: Says) -> str:
    return f"{COLOR_NAMES[color]} {word}" if color in COLOR_NAMES and says() else word


def _pattern(thing: Thing, says: Says) -> list[str]:
    if thing.marks is None or thing.marks.pattern is None or not says():
        return []
    words = _colored(PATTERN_WORDS[thing.marks.pattern], thing.marks.pattern_color, says)
    return [with_article(words) if thing.marks.pattern == "halves" else words]


def _worn(thing: Thing, says: Says) -> list[str]:
    worn = [] if thing.marks is None else [pair for pair in thing.marks.accessories if says()]
    said = [_colored(name, color, says) for name, color in worn]
    return [words if words.endswith("glasses") else with_article(words) for words in said]


def _hair(thing: Thing, says: Says) -> list[str]:
    look = thing.look
    if look is None:
        return []
    beard = ["a beard"] if look.beard and says() else []
    cut = CUTS[look.cut] if says() else "hair"
    adjective, _, rest = cut.rpartition("hair")
    color = look.hair_name if look.hair_name and says() else ""
    if cut == "hair" and not color:
        return beard
    return [" ".join(f"{adjective} {color} hair{rest}".split()), *beard]


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def caption(scene: Scene, rng: random.Random | None = None, *, drop: float = 0.0, marks: bool = False) -> str:
    """Describes a scene, its things from left to right unless words for places say otherwise.

    Args:
        rng: chooses among the wordings; None takes the plainest.
        drop: probability with which each colour and mark, and the background, goes unsaid.
        marks: whether identities are described, rather than only named.
    """
    choose = rng.choice if rng else (lambda options: options[0])
    says: Says = (lambda: rng.random() >= drop) if rng else (lambda: True)
    names = [phrase(p.thing, says, pose=_pose_word(p, rng), marks=marks) for p in scene.things]
    things = _one(scene.things[0], names[0], rng) if len(names) == 1 else _several(scene.things, names, rng)
    prefix = "" if things.startswith("a close-up") else choose(PREFIXES)
    return f"{prefix}{things} {choose(BACKGROUNDS[scene.background])}" if says() else f"{prefix}{things}"


def _pose_word(placed: Placed, rng: random.Random | None) -> str:
    """The pose, now and then, where the class has more than one."""
    named = placed.pose in POSE_WORDS and rng is not None and rng.random() < 0.4
    return placed.pose if named else ""


def _one(placed: Placed, name: str, rng: random.Random | None) -> str:
    if rng is None or rng.random() < 0.5:
        return name
    if placed.half > NEAR:
        return f"a close-up of {name}"
    if placed.half < FAR:
        return f"{name} far away"
    if placed.x < SIDE:
        return f"{name} on the left"
    return f"{name} on the right" if placed.x > 1 - SIDE else name


def _several(things: Sequence[Placed], names: Sequence[str], rng: random.Random | None) -> str:
    if rng is None or rng.random() < 0.5:
        return _joined(names)
    if len(names) == 2:
        first, second = things
        near, far = (names[0], names[1]) if first.y > second.y else (names[1], names[0])
        if abs(first.y - second.y) > 0.07 and rng.random() < 0.7:
            return f"{near} in front of {far}" if rng.random() < 0.5 else f"{far} behind {near}"
        wordings = ("{0} to the left of {1}", "{1} to the right of {0}", "{0} next to {1}")
        return rng.choice(wordings).format(*names)
    if len(names) == 3 and rng.random() < 0.5:
        return "{} on the left, {} in the middle and {} on the right".format(*names)
    return _joined(names)
