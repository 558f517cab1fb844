"""Endless training data: example number `index` of a seed is always the same drawing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spectral_fusion.toybox.paint import SIZE, draw_scene
from spectral_fusion.toybox.tokens import make_tokenizer
from spectral_fusion.toybox.world import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    LAYOUTS,
    Placed,
    Scene,
    arrange,
    caption,
    identity,
    plain_thing,
    random_scene,
)

Example = dict[str, Tensor]

# The left, middle and right place of a scene, by the number of its things.
SLOTS: dict[int, tuple[int, ...]] = {1: (1,), 2: (0, 2), 3: (0, 1, 2)}
NOTHING = 0  # the label of an empty slot; classes and colours count from 1
MARKED = 0.6  # share of marked things in what the denoiser sees
HELD_OUT = 1_000_000  # identities below this number are never seen in training


def to_tensor(image: Image.Image) -> Tensor:
    """RGB picture to (3, height, width) in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1)


def tokenize(text: str) -> Tensor:
    """Token ids, padded to the tokenizer's length: (length,)."""
    return make_tokenizer()(text, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]


def labels(scene: Scene) -> Tensor:
    """(7,): class of each slot, colour of each slot, background; `NOTHING` where a slot is empty."""
    out = torch.zeros(7, dtype=torch.long)
    for slot, placed in zip(SLOTS[len(scene.things)], scene.things, strict=True):
        out[slot] = 1 + CLASSES.index(placed.thing.name)
        out[3 + slot] = 1 + list(COLORS).index(placed.thing.color_name or "red")
    out[6] = list(BACKGROUNDS).index(scene.background)
    return out


def crop(image: Image.Image, placed: Placed, margin: float = 0.25) -> Image.Image:
    """The square around one thing of a picture, at the picture's full size; `margin` in parts of its half height."""
    return crop_box(image, placed.box, margin)


def crop_box(image: Image.Image, box: tuple[float, float, float, float], margin: float = 0.25) -> Image.Image:
    """The square around a box given in parts of the picture, enlarged to the picture's size."""
    left, top, right, bottom = box
    half = max(right - left, bottom - top) / 2 * (1 + margin)
    x, y = (left + right) / 2, (top + bottom) / 2
    x, y = (min(max(c, half), 1 - half) if half < 0.5 else 0.5 for c in (x, y))
    half = min(half, 0.5)
    corners = (x - half, y - half, x + half, y + half)
    left, top, right, bottom = (round(v * image.width) for v in corners)
    return image.crop((left, top, right, bottom)).resize(image.size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Drawings(Dataset[Example]):
    """Examples made by `make(rng)`, numbered."""

    make: Callable[[random.Random], Example]
    seed: int
    name: str

    def __getitem__(self, index: int) -> Example:
        return self.make(random.Random(f"{self.name} {self.seed} {index}"))

    def batches(self, batch: int, start: int, stop: int, workers: int = 0) -> DataLoader[Example]:
        """Batches number `start` to `stop`."""
        return loader(self, batch, start, stop, workers)


def loader(drawings: Drawings, batch: int, start: int, stop: int, workers: int = 0) -> DataLoader[Example]:
    """Batches number `start` to `stop`."""
    return DataLoader(drawings, batch, sampler=range(start * batch, stop * batch), num_workers=workers, drop_last=True)


def mixed_picture(rng: random.Random) -> Example:
    """For the autoencoder: plain and marked things. Every other picture is a collage of four close-ups.

    Most of a scene is flat background; a collage holds three times as many edges for the same computing.
    """
    scenes = [random_scene(rng, marked=0.5) for _ in range(4)]
    if rng.random() < 0.5:
        return {"pixels": to_tensor(draw_scene(scenes[0]))}
    collage = Image.new("RGB", (SIZE, SIZE))
    half = SIZE // 2
    for i, scene in enumerate(scenes):
        placed = rng.choice(scene.things)
        reach = max(0, round(placed.half * SIZE) - half // 2)
        x = round(placed.x * SIZE) - half // 2 + rng.randint(-reach - 4, reach + 4)
        y = round((placed.y - placed.half) * SIZE) - half // 2 + rng.randint(-reach - 4, reach + 4)
        x, y = (min(max(v, 0), half) for v in (x, y))
        collage.paste(draw_scene(scene).crop((x, y, x + half, y + half)), (i % 2 * half, i // 2 * half))
    return {"pixels": to_tensor(collage)}


def captioned_picture(rng: random.Random) -> Example:
    """For the denoiser: plain and marked things, with a caption; one in ten has none (classifier-free guidance).

    A base that had never drawn a stripe or a hat would need deltas as large as its weights to learn one, which no real
    base does. Marks have names, then; unusual colours have none, and no combination is seen twice.
    """
    scene = random_scene(rng, marked=MARKED)
    scene = replace(scene, things=tuple(_bared(placed, rng) for placed in scene.things))
    text = "" if rng.random() < 0.1 else caption(scene, rng, drop=0.15, marks=True)
    return {"pixels": to_tensor(draw_scene(scene)), "tokens": tokenize(text)}


def _bared(placed: Placed, rng: random.Random) -> Placed:
    """Some marked things without their marks: an unusual colour alone."""
    bare = placed.thing.marks is not None and rng.random() < 0.25
    return replace(placed, thing=replace(placed.thing, marks=None)) if bare else placed


def described_picture(rng: random.Random) -> Example:
    """For the image-text scorer: the caption says everything."""
    scene = random_scene(rng)
    return {"pixels": to_tensor(draw_scene(scene)), "tokens": tokenize(caption(scene, rng))}


def labelled_picture(rng: random.Random) -> Example:
    """For the classifier, with a little noise so that it is robust to imperfect pictures."""
    scene = random_scene(rng)
    pixels = to_tensor(draw_scene(scene))
    noise = torch.from_numpy(np.random.default_rng(rng.randrange(2**31)).normal(size=pixels.shape)).float()
    return {"pixels": pixels + rng.choice((0.0, 0.05, 0.1)) * noise, "labels": labels(scene)}


def identity_pair(rng: random.Random) -> Example:
    """For the identity encoder: two views of one unseen-in-evaluation identity, in other company and places."""
    thing = identity(rng.randrange(HELD_OUT, 2_000_000_000))
    return {"first": _view(thing, rng), "second": _view(thing, rng)}


def _view(thing: object, rng: random.Random) -> Tensor:
    count = rng.choice((1, 1, 2, 3))
    things = [
        plain_thing(rng) if rng.random() < 0.5 else identity(rng.randrange(HELD_OUT, 2_000_000_000))
        for _ in LAYOUTS[count][0]
    ]
    place = rng.randrange(count)
    things[place] = thing  # type: ignore[call-overload]
    scene = arrange(things, rng)
    image = draw_scene(scene)
    if count > 1 or rng.random() < 0.5:
        image = crop(image, scene.things[place], rng.uniform(0.1, 0.4))
    return to_tensor(image)
