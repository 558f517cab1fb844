"""The reader: says of one thing, cut out of a picture, what it is and what it wears. It scores, and never trains.

The detector finds things whatever they are, and its words for them are a by-product: it sees each in few cells. The
reader sees a thing alone, as large as the identity encoder does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectral_fusion.toybox.data import Example
from spectral_fusion.toybox128.data import any_view
from spectral_fusion.toybox128.detector import BITS, FIELDS, SIZES, Found, read_off
from spectral_fusion.toybox128.world import any_thing

OUTPUTS = sum(SIZES) + len(BITS)


def labelled_view(rng: random.Random) -> Example:
    """For the reader: a view of one thing of a scene, spoiled a little, and what is right of it."""
    thing = any_thing(rng, marked=0.6)
    fields, bits = read_off(thing)
    return {"pixels": any_view(thing, rng), "fields": torch.tensor(fields), "bits": torch.tensor(bits).float()}


def outputs(reader: nn.Module, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
    """Logits of `FIELDS`, (batch, values) each, and of `BITS`. pixels: (batch, 3, 96, 96)."""
    *fields, bits = reader(pixels).logits.float().split([*SIZES, len(BITS)], dim=-1)
    return fields, bits


def reader_loss(reader: nn.Module, batch: Example, generator: torch.Generator) -> Tensor:
    """Cross entropy of each field, "none of them" being a value of its own, and of each mark."""
    fields, bits = outputs(reader, batch["pixels"])
    each = [F.cross_entropy(logits, batch["fields"][:, i]) for i, logits in enumerate(fields)]
    marks = F.binary_cross_entropy_with_logits(bits, batch["bits"], reduction="sum") / len(bits)
    return torch.stack(each).sum() + marks


@torch.no_grad()
def read(reader: nn.Module, views: Tensor, found: Sequence[Found]) -> list[Found]:
    """The same things, as the reader says. views: (things, 3, 96, 96), one of each thing."""
    fields, bits = outputs(reader, views)
    fields[0][:, 0] = -torch.inf  # where there is a thing, it is of some class
    said = torch.stack([logits.argmax(-1) for logits in fields], dim=1).tolist()
    return [
        replace(
            thing,
            **{key: ("", *values)[i] for (key, values), i in zip(FIELDS.items(), chosen, strict=True)},
            marks=tuple(name for name, on in zip(BITS, worn, strict=True) if on),
        )
        for thing, chosen, worn in zip(found, said, (bits > 0).tolist(), strict=True)
    ]
