"""Endless training data: example number `index` of a seed is always the same drawing."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from spectral_fusion.toybox.data import Example, crop_box, to_tensor
from spectral_fusion.toybox128.caption import caption
from spectral_fusion.toybox128.layout import arrange, hidden, place, random_scene
from spectral_fusion.toybox128.paint import draw_cells, draw_scene
from spectral_fusion.toybox128.tokens import make_tokenizer
from spectral_fusion.toybox128.world import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    HELD_OUT,
    PATTERNS,
    UNUSUAL_COLORS,
    VARIANTS,
    Scene,
    Thing,
    any_thing,
    identity,
)

MARKED = 0.5  # share of marked things in what the denoiser sees
COUNTS = (1, 1, 2, 2, 2, 3, 3, 3, 4)  # how many things the denoiser sees in a scene, each as often; three are hardest


def crowded_scene(rng: random.Random) -> Scene:
    """Things of all sizes anywhere, many hidden in part: three times as many edges as a scene has, at the same cost."""
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
    """(3, 16, 16) bytes: for each cell of the latents the class (or the place), the colour and the pattern there."""
    rows = [(list(BACKGROUNDS).index(scene.background), 0, 0), *(_thing_labels(p.thing) for p in scene.things)]
    return torch.from_numpy(np.array(rows, dtype=np.uint8)[draw_cells(scene)]).permute(2, 0, 1).contiguous()


def _thing_labels(thing: Thing) -> tuple[int, int, int]:
    color = list(COLORS).index(thing.color_name) if thing.color_name else PALETTE.index(thing.color)
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
        scene = random_scene(rng, marked=marked, counts=COUNTS)
    else:
        scene = arrange([any_thing(rng, marked=marked) for _ in range(rng.choice((1, 1, 1, 2)))], rng)
    texts = [caption(scene, rng, drop=0.1, marks=True) for _ in range(2)]
    return {
        "pixels": to_tensor(draw_scene(scene)),
        "tokens": tokenize(texts).to(torch.int16),
        "cells": cell_labels(scene),
    }


VIEW = 96  # pixels of what the identity encoder sees


def view(image: Image.Image, box: tuple[float, float, float, float], margin: float = 0.2) -> Image.Image:
    """The square around a box, as the identity encoder sees it."""
    return crop_box(image, box, margin).resize((VIEW, VIEW), Image.Resampling.BICUBIC)


def identity_pair(rng: random.Random) -> Example:
    """For the identity encoder: two views of an identity that no evaluation uses, each in a scene of its own."""
    thing = identity(rng.randrange(HELD_OUT, 2_000_000_000))
    return {"first": any_view(thing, rng), "second": any_view(thing, rng)}


def any_view(thing: Thing, rng: random.Random) -> Tensor:
    """A view of a thing among others by chance, not quite at its box, spoiled a little: (3, 96, 96)."""
    things = [any_thing(rng, marked=0.5) for _ in range(rng.choice((1, 1, 2, 3, 4)))]
    index = rng.randrange(len(things))
    things[index] = thing
    scene = arrange(things, rng)
    while hidden(scene.things) > 0.4:
        scene = arrange(things, rng)
    box = scene.things[index].box
    slip = [rng.gauss(0, 0.03) * (box[3] - box[1]) for _ in range(4)]  # a found box is never quite right
    image = view(draw_scene(scene), tuple(b + s for b, s in zip(box, slip, strict=True)), rng.uniform(0.1, 0.3))  # type: ignore[arg-type]
    return spoiled(to_tensor(image), rng)


def spoiled(pixels: Tensor, rng: random.Random) -> Tensor:
    """Blurred on half of the pictures, and noisy on two thirds, so that scorers read imperfect pictures too."""
    if rng.random() < 0.5:
        small = F.interpolate(pixels[None], scale_factor=rng.uniform(0.4, 0.9), mode="bilinear", antialias=True)
        pixels = F.interpolate(small, size=pixels.shape[1:], mode="bilinear")[0]
    noise = torch.from_numpy(np.random.default_rng(rng.randrange(2**31)).normal(size=pixels.shape)).float()
    return pixels + rng.choice((0.0, 0.05, 0.12)) * noise
