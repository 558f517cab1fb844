"""Endless training data: example number `index` of a seed is always the same drawing."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from spectral_fusion.toybox.data import Example, to_tensor
from spectral_fusion.toybox128.caption import caption
from spectral_fusion.toybox128.paint import draw_cells, draw_scene
from spectral_fusion.toybox128.tokens import make_tokenizer
from spectral_fusion.toybox128.world import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    PATTERNS,
    UNUSUAL_COLORS,
    VARIANTS,
    Scene,
    Thing,
    any_thing,
    arrange,
    place,
    random_scene,
)


MARKED = 0.5  # share of marked things in what the denoiser sees


def crowded_scene(rng: random.Random) -> Scene:
    """Things of all sizes anywhere, many hidden in part: three times as many edges as a scene has, for the same computing."""
    things = [any_thing(rng, marked=0.6) for _ in range(rng.randint(4, 9))]
    placed = [place(thing, rng.random(), rng.uniform(0.2, 1.2), rng.uniform(0.1, 0.36), rng) for thing in things]
    return Scene(rng.choice(list(BACKGROUNDS)), tuple(placed), rng.randrange(VARIANTS))


def mixed_picture(rng: random.Random) -> Example:
    """For the autoencoder: scenes of plain and marked things, every other one crowded."""
    scene = random_scene(rng, marked=0.6) if rng.random() < 0.5 else crowded_scene(rng)
    return {"pixels": to_tensor(draw_scene(scene))}


def scene_picture(rng: random.Random) -> Example:
    """What the denoiser sees, as a picture alone."""
    return {"pixels": to_tensor(draw_scene(random_scene(rng, marked=MARKED)))}


PALETTE = [*COLORS.values(), *UNUSUAL_COLORS.values()]
# How many values each of the three maps of `cell_labels` has: places and classes, colours, patterns.
CELL_LABELS = (len(BACKGROUNDS) + len(CLASSES), 1 + len(PALETTE), 1 + len(PATTERNS))
EASY = 60_000  # pictures until scenes are as varied as they get


def tokenize(texts: list[str]) -> Tensor:
    """Token ids, padded to the tokenizer's length: (texts, length)."""
    return make_tokenizer()(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def cell_labels(scene: Scene) -> Tensor:
    """(3, 16, 16) bytes: for each cell of the latents the class (or the place), the colour and the pattern in its middle."""
    rows = [(list(BACKGROUNDS).index(scene.background), 0, 0), *(_thing_labels(p.thing) for p in scene.things)]
    return torch.from_numpy(np.array(rows, dtype=np.uint8)[draw_cells(scene)]).permute(2, 0, 1).contiguous()


def _thing_labels(thing: Thing) -> tuple[int, int, int]:
    if thing.color_name:
        color = list(COLORS).index(thing.color_name)
    else:
        color = PALETTE.index(thing.color)
    pattern = 1 + PATTERNS.index(thing.marks.pattern) if thing.marks and thing.marks.pattern else 0
    return len(BACKGROUNDS) + CLASSES.index(thing.name), 1 + color, pattern


def captioned_record(rng: random.Random, seen: int) -> Example:
    """For the denoiser: a picture, two captions of it, and what is in each cell.

    Marks have names in the captions, as they have in what real bases learned from; unusual colours have none, and no
    identity is seen twice. The first pictures are the easiest: one or two things, mostly plain.
    """
    hard = min(1.0, seen / EASY)
    marked = MARKED * (0.3 + 0.7 * hard)
    if rng.random() < hard:
        scene = random_scene(rng, marked=marked)
    else:
        scene = arrange([any_thing(rng, marked=marked) for _ in range(rng.choice((1, 1, 1, 2)))], rng)
    texts = [caption(scene, rng, drop=0.1, marks=True) for _ in range(2)]
    return {
        "pixels": to_tensor(draw_scene(scene)),
        "tokens": tokenize(texts).to(torch.int16),
        "cells": cell_labels(scene),
    }
