"""Endless training data: example number `index` of a seed is always the same drawing."""

from __future__ import annotations

import random

from spectral_fusion.toybox.data import Example, to_tensor
from spectral_fusion.toybox128.paint import draw_scene
from spectral_fusion.toybox128.world import (
    BACKGROUNDS,
    VARIANTS,
    Scene,
    any_thing,
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
