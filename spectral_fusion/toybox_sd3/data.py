"""What the miniature transformer sees: toybox128's drawings, of half its classes and places, for little time."""

from __future__ import annotations

import dataclasses
import random

from torch import Tensor

from spectral_fusion.toybox.data import Example, to_tensor
from spectral_fusion.toybox128.caption import caption
from spectral_fusion.toybox128.data import cell_labels
from spectral_fusion.toybox128.layout import arrange
from spectral_fusion.toybox128.paint import draw_scene
from spectral_fusion.toybox128.world import HELD_OUT, Scene, Thing, identity, plain_thing
from spectral_fusion.toybox_sd3.models import make_tokenizer

CLASSES = ("cat", "dog", "rabbit", "bear", "fish", "robot", "car", "house", "ball", "mug", "woman", "man")
PLACES = ("grass", "sand", "snow", "night", "room", "forest")
LOOKS = 3  # variants of each place
COUNTS = (1, 1, 1, 1, 2, 2, 3)
MARKED = 0.3
MADE_UP = 0.15  # of the captions
EASY = 12_000  # pictures until there is more than one thing in every other, and until things are marked


def _thing(rng: random.Random, marked: float) -> Thing:
    name = rng.choice(CLASSES)
    return identity(rng.randrange(HELD_OUT, 2_000_000_000), name) if rng.random() < marked else plain_thing(rng, name)


def scene(rng: random.Random, hard: float = 1.0, counts: tuple[int, ...] = COUNTS) -> Scene:
    """One to three things, most of them plain. hard: from 0, one plain thing mostly, to 1."""
    count = rng.choice(counts) if rng.random() < 0.3 + 0.7 * hard else 1
    things = [_thing(rng, MARKED * hard) for _ in range(count)]
    drawn = arrange(things, rng, rng.choice(PLACES), deep=0.1)
    return dataclasses.replace(drawn, variant=rng.randrange(LOOKS))


def with_made_up_word(text: str, rng: random.Random) -> str:
    """Now and then a class is called by a made-up name too, as triggers are, so that such words mean nothing yet."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if word.rstrip(",") in CLASSES]
    if not places or rng.random() >= MADE_UP:
        return text
    name = "".join(rng.choice("bcdfghjklmnpqrstvwz" if i % 2 == 0 else "aeiou") for i in range(rng.randint(2, 5)))
    words.insert(rng.choice(places), f"<{name}>")
    return " ".join(words)


def tokenize(texts: list[str]) -> Tensor:
    """Token ids, padded to the tokenizer's length: (texts, length)."""
    return make_tokenizer()(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def captioned_record(rng: random.Random, seen: int) -> Example:
    """A picture, two captions of it, and what is in each cell of its latents."""
    drawn = scene(rng, min(1.0, seen / EASY))
    texts = [with_made_up_word(caption(drawn, rng, drop=0.1, marks=True), rng) for _ in range(2)]
    return {"pixels": to_tensor(draw_scene(drawn)), "tokens": tokenize(texts), "cells": cell_labels(drawn)}
