"""The small models that judge pictures of the second drawn world, and where its weights are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, PreTrainedModel, ResNetForImageClassification

from spectral_fusion.errors import InputError
from spectral_fusion.toybox.data import to_tensor
from spectral_fusion.toybox128.backgrounds import SIZE
from spectral_fusion.toybox128.caption import PATTERN_WORDS
from spectral_fusion.toybox128.data import view
from spectral_fusion.toybox128.detector import Found, find
from spectral_fusion.toybox128.reader import read
from spectral_fusion.toybox128.world import ACCESSORIES, BACKGROUNDS, CLASSES, COLORS

Box = tuple[float, float, float, float]
BATCH = 32
MIDDLE = (0.1, 0.1, 0.9, 0.9)  # what a crop with the usual margin shows of its subject


def weights_folder() -> Path:
    """The diffusers folder of the second edition inside the installed package; its scorers are in `scorers/`."""
    return Path(__file__).parent / "weights"


SCORERS: dict[str, type[PreTrainedModel]] = {
    "detector": CLIPVisionModelWithProjection,
    "reader": ResNetForImageClassification,
    "identity": CLIPVisionModelWithProjection,
}


@cache
def load_scorer(name: str, folder: Path) -> PreTrainedModel:
    """A scorer of a packed folder: one of `SCORERS`.

    Raises InputError if it is missing or damaged.
    """
    place = folder / "scorers" / name
    try:
        return SCORERS[name].from_pretrained(place, dtype=torch.float32, local_files_only=True).eval()
    except Exception as error:
        raise InputError(
            f"the scorer {name!r} cannot be read from {place} ({type(error).__name__}); "
            "reinstall the package: pip install --force-reinstall spectral-fusion"
        ) from error


def find_things(images: Sequence[Image.Image], folder: Path | None = None) -> list[tuple[str, list[Found]]]:
    """The place, and the things from left to right, of each picture: found by the detector, named by the reader."""
    seen = _detected(images, folder or weights_folder())
    rows = [(image, thing) for image, (_, found) in zip(images, seen, strict=True) for thing in found]
    if not rows:
        return seen
    reader, things = load_scorer("reader", folder or weights_folder()), [thing for _, thing in rows]
    views = _views([image for image, _ in rows], [thing.box for thing in things])
    parts = [slice(start, start + BATCH) for start in range(0, len(things), BATCH)]
    named = iter([thing for part in parts for thing in read(reader, views[part], things[part])])
    return [(place, [next(named) for _ in found]) for place, found in seen]


@torch.no_grad()
def _detected(images: Sequence[Image.Image], folder: Path) -> list[tuple[str, list[Found]]]:
    detector = load_scorer("detector", folder)
    sized = [image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC) for image in images]
    pixels = torch.stack([to_tensor(image) for image in sized])
    return [seen for part in pixels.split(BATCH) for seen in find(detector, part)]


def find_boxes(images: Sequence[Image.Image]) -> list[list[Box]]:
    """[picture]: the box of each thing, of any class, from left to right."""
    return [[thing.box for thing in found] for _, found in _detected(images, weights_folder())]


def embed_identity(images: Sequence[Image.Image]) -> Tensor:
    """Who is seen: (n, width), unit length, of the largest thing in each picture, or of its middle."""
    return embed_boxes(images, [max(boxes, key=_area, default=MIDDLE) for boxes in find_boxes(images)])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def text_alignment(images: Sequence[Image.Image], captions: Sequence[str]) -> Tensor:
    """Share of what every caption names that is found in every picture: (pictures, captions), from 0 to 1.

    Classes, colours, patterns, what is worn, and the place; who wears or has it is not asked.
    """
    seen = [_words_for(place, found) for place, found in find_things(images)]
    asked = [_named(text) for text in captions]
    return torch.tensor([[len(words & wanted) / max(1, len(wanted)) for wanted in asked] for words in seen])


def _words_for(place: str, found: Sequence[Found]) -> set[str]:
    words = {place}
    for thing in found:
        words |= {thing.name, thing.color, thing.pattern, thing.pattern_color, *thing.marks}
    return words - {""}


def _named(text: str) -> set[str]:
    """The names in a caption. Longer ones first: "vertical stripes" are no "stripes"."""
    left, named = f" {text.lower()} ".replace(",", " ,"), set()
    for phrase in sorted(_PHRASES, key=len, reverse=True):
        if f" {phrase} " in left:
            named.add(_PHRASES[phrase])
            left = left.replace(f" {phrase} ", " ")
    return named


_PHRASES = {
    **{name: name for name in (*CLASSES, *COLORS, *ACCESSORIES, "beard")},
    **{words: name for name, words in PATTERN_WORDS.items()},
    **{words: name for name, wordings in BACKGROUNDS.items() for words in wordings},
}


@torch.no_grad()
def embed_boxes(images: Sequence[Image.Image], boxes: Sequence[Box], folder: Path | None = None) -> Tensor:
    """Who stands in the box of each picture: (n, width), unit length; cosines compare identities."""
    encoder = load_scorer("identity", folder or weights_folder())
    embeds = [encoder(part).image_embeds for part in _views(images, boxes).split(BATCH)]
    return F.normalize(torch.cat(embeds), dim=-1)


def _views(images: Sequence[Image.Image], boxes: Sequence[Box]) -> Tensor:
    """What stands in the box of each picture: (n, 3, 96, 96)."""
    return torch.stack([to_tensor(view(image.convert("RGB"), box)) for image, box in zip(images, boxes, strict=True)])
