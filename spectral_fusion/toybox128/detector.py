"""The detector: finds each thing of a picture and its box, and the place. It scores, and never trains.

A vision transformer with one output a patch: what stands in the middle of the patch, and how far the edges of that
thing's box are. The output of its class token is the place.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectral_fusion.boxes import overlap
from spectral_fusion.toybox.data import Example, to_tensor
from spectral_fusion.toybox128.data import spoiled
from spectral_fusion.toybox128.layout import random_scene
from spectral_fusion.toybox128.paint import CELLS, draw_cells, draw_scene
from spectral_fusion.toybox128.people import CUTS
from spectral_fusion.toybox128.world import (
    ACCESSORIES,
    BACKGROUNDS,
    CLASSES,
    COLOR_NAMES,
    COLORS,
    HAIR,
    PATTERNS,
    Thing,
)

# What is read off a thing: names of the values, of which number 0 is none of them.
FIELDS: dict[str, tuple[str, ...]] = {
    "name": CLASSES,
    "color": tuple(COLORS),
    "pattern": PATTERNS,
    "pattern_color": tuple(COLORS),
    "cut": tuple(CUTS),
    "hair": tuple(HAIR),
}
BITS: tuple[str, ...] = (*ACCESSORIES, "beard")
SIZES = [1 + len(values) for values in FIELDS.values()]
OUTPUTS = sum(SIZES) + len(BITS) + 4 + len(BACKGROUNDS)
BOX_WEIGHT = 4.0


@dataclass(frozen=True)
class Found:
    """A thing that the detector sees. `box` is (left, top, right, bottom) in parts of the picture."""

    box: tuple[float, float, float, float]
    score: float
    name: str
    color: str
    pattern: str
    pattern_color: str
    cut: str
    hair: str
    marks: tuple[str, ...]

    @property
    def x(self) -> float:
        """The middle, across."""
        return (self.box[0] + self.box[2]) / 2


def read_off(thing: Thing) -> tuple[list[int], list[int]]:
    """The right values of `FIELDS` (0 for none of them) and of `BITS`."""
    marks, look = thing.marks, thing.look
    said = {
        "name": thing.name,
        "color": thing.color_name or COLOR_NAMES.get(thing.color),
        "pattern": marks.pattern if marks else None,
        "pattern_color": COLOR_NAMES.get(marks.pattern_color) if marks and marks.pattern else None,
        "cut": look.cut if look else None,
        "hair": look.hair_name if look else None,
    }
    fields = [1 + values.index(said[key]) if said[key] else 0 for key, values in FIELDS.items()]
    worn = {name for name, _ in marks.accessories} if marks else set()
    worn |= {"beard"} if look and look.beard else set()
    return fields, [int(name in worn) for name in BITS]


def labelled_record(rng: random.Random) -> Example:
    """For the detector: a picture, spoiled a little so that imperfect ones are read too, and what is in each cell."""
    scene = random_scene(rng, marked=0.5, counts=(1, 1, 2, 2, 3, 4))
    rows = [read_off(placed.thing) for placed in scene.things]
    cells = draw_cells(scene)
    fields = np.array([[0] * len(FIELDS), *(row[0] for row in rows)])[cells]
    bits = np.array([[0] * len(BITS), *(row[1] for row in rows)])[cells]
    boxes = np.array([(0.0, 0.0, 0.0, 0.0), *(placed.box for placed in scene.things)])[cells]
    return {
        "pixels": spoiled(to_tensor(draw_scene(scene)), rng),
        "fields": torch.from_numpy(fields).reshape(-1, len(FIELDS)),
        "bits": torch.from_numpy(bits).reshape(-1, len(BITS)).float(),
        "boxes": torch.from_numpy(boxes).reshape(-1, 4).float(),
        "place": torch.tensor(list(BACKGROUNDS).index(scene.background)),
    }


def outputs(detector: nn.Module, pixels: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Logits of fields and bits of each cell, (batch, cells, values), the boxes, and the logits of the place."""
    hidden = detector(pixels).last_hidden_state
    hidden = detector.visual_projection(detector.vision_model.post_layernorm(hidden))
    *fields, bits, edges, place = hidden.split([*SIZES, len(BITS), 4, len(BACKGROUNDS)], dim=-1)
    edges = F.softplus(edges[:, 1:].float())
    middles = (torch.arange(CELLS, device=pixels.device) + 0.5) / CELLS
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    centre = torch.stack([x, y], dim=-1).reshape(1, -1, 2)
    boxes = torch.cat([centre - edges[..., :2], centre + edges[..., 2:]], dim=-1)
    return [field[:, 1:].float() for field in fields], bits[:, 1:].float(), boxes, place[:, 0].float()


def detector_loss(detector: nn.Module, batch: Example, generator: torch.Generator) -> Tensor:
    """Cross entropy of the class in each cell and of the place; of all else, and the box, where a thing stands."""
    fields, bits, boxes, place = outputs(detector, batch["pixels"])
    there = batch["fields"][..., 0] > 0
    loss = F.cross_entropy(fields[0].flatten(0, 1), batch["fields"][..., 0].flatten())
    loss = loss + F.cross_entropy(place, batch["place"])
    for i, logits in enumerate(fields[1:], start=1):
        loss = loss + 0.5 * F.cross_entropy(logits[there], batch["fields"][..., i][there])
    loss = loss + F.binary_cross_entropy_with_logits(bits[there], batch["bits"][there])
    return loss + BOX_WEIGHT * (boxes[there] - batch["boxes"][there]).abs().mean()


@torch.no_grad()
def find(detector: nn.Module, pixels: Tensor, *, least: float = 0.5) -> list[tuple[str, list[Found]]]:
    """The place and the things of each picture, from left to right. pixels: (batch, 3, 128, 128)."""
    fields, bits, boxes, place = outputs(detector, pixels)
    places = [list(BACKGROUNDS)[i] for i in place.argmax(-1).tolist()]
    found = []
    for i in range(len(pixels)):
        each = [field[i].softmax(-1) for field in fields]
        found.append(_things(each, bits[i] > 0, boxes[i], least))
    return list(zip(places, found, strict=True))


def _things(fields: list[Tensor], bits: Tensor, boxes: Tensor, least: float) -> list[Found]:
    """Cells whose boxes agree are one thing; it is what they say on average. fields: (cells, values) each."""
    there = 1 - fields[0][:, 0]
    left = (there > least).nonzero().flatten()
    things: list[Found] = []
    while len(left):
        best = left[there[left].argmax()]
        same = left[overlap(boxes[best], boxes[left]) > 0.5]
        left = left[~torch.isin(left, same)]
        if len(same) < 2 and len(things):
            continue
        weights = there[same, None] / there[same].sum()
        means = [(field[same] * weights).sum(0) for field in fields]
        means[0][0] = 0
        said = [("", *values)[int(mean.argmax())] for mean, values in zip(means, FIELDS.values(), strict=True)]
        box = tuple((boxes[same] * weights).sum(0).tolist())
        marks = tuple(name for name, on in zip(BITS, bits[same].float().mean(0) > 0.5, strict=True) if on)
        things.append(Found(box, there[best].item(), *said, marks))  # type: ignore[arg-type, call-arg]
    return sorted(things, key=lambda thing: thing.x)
