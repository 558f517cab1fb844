"""Finding each subject in a picture, so that one that is missing counts nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from spectral_fusion.base.interface import Base
from spectral_fusion.base.regions import Box
from spectral_fusion.boxes import overlap
from spectral_fusion.evaluate.boxes import crop_square
from spectral_fusion.evaluate.scorers import Scorers, loading
from spectral_fusion.evaluate.similarity import Photos
from spectral_fusion.names import key

OWL = "google/owlv2-base-patch16-ensemble"
LEAST = 0.2  # what OWLv2's own demonstration takes for seen
SAME = 0.5  # boxes of one word that share more of their area than this are one thing


Edges = tuple[float, float, float, float]
"""Left, top, right and bottom of a box, in parts of the picture."""
Thing = tuple[str, float, Edges]
"""Word, score and box of something in a picture."""


class Seen(NamedTuple):
    """A `Thing` with names."""

    word: str
    score: float
    box: Edges


class Detector(Protocol):
    """Finds things by their class; `PretrainedDetector` is one."""

    def detect(self, images: Sequence[Image.Image], words: Sequence[str]) -> list[list[Thing]]:
        """[picture]: word, score and box of whatever is seen of these words."""


@runtime_checkable
class Finder(Protocol):
    """Finds whatever stands in a picture, of any class, and says who it is.

    `spectral_fusion.toybox128.scorers` is one. Subjects are then told apart by their looks, as in MuDI's
    detect-and-compare (arXiv 2404.04243).
    """

    def find_boxes(self, images: Sequence[Image.Image]) -> list[list[Edges]]:
        """[picture]: the box of each thing in it."""

    def embed_boxes(self, images: Sequence[Image.Image], boxes: Sequence[Edges]) -> Tensor:
        """(n, width), unit length: who stands in the box of each picture."""


def load_detector(base: Base, name: str | None = None) -> Detector | Finder | None:
    """The model of that name, or the base's own; None where there is neither, and subjects are looked for in places.

    Args:
        name: folder or hub id of an OWLv2 or OWL-ViT model.

    Raises:
        InputError: the model is neither a folder nor in the hub's cache or reach, or of another kind.
    """
    if name is not None:
        return PretrainedDetector(name, device=base.device)
    own = base.scorers()
    return own if isinstance(own, Finder) else None


class PretrainedDetector:
    """An open-vocabulary detector: OWLv2, or whatever transformers loads for zero-shot object detection.

    Raises:
        InputError: the model is neither a folder nor in the hub's cache or reach, or of another kind.
    """

    def __init__(self, name: str = OWL, *, least: float = LEAST, device: str | torch.device = "cpu") -> None:
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        with loading(name):
            self._model = AutoModelForZeroShotObjectDetection.from_pretrained(name).eval().to(device)
            self._processor = AutoProcessor.from_pretrained(name)
        self.least = least

    @torch.no_grad()
    def detect(self, images: Sequence[Image.Image], words: Sequence[str]) -> list[list[Thing]]:
        """[picture]: word, score and box of whatever is seen of these words."""
        asked = list(dict.fromkeys(words))
        return [self._seen(image.convert("RGB"), asked) for image in images]

    def _seen(self, image: Image.Image, words: list[str]) -> list[Thing]:
        inputs = self._processor(text=[[f"a photo of a {word}" for word in words]], images=image, return_tensors="pt")
        outputs = self._model(**inputs.to(self._model.device))
        (found,) = self._processor.post_process_grounded_object_detection(
            outputs, threshold=self.least, target_sizes=[(image.height, image.width)]
        )
        return [
            (words[int(label)], float(score), _in_parts(box, image))
            for label, score, box in zip(found["labels"], found["scores"], found["boxes"], strict=True)
        ]


def _in_parts(box: Tensor, image: Image.Image) -> Edges:
    left, top, right, bottom = box.tolist()
    across, down = (lambda x: min(max(x / image.width, 0.0), 1.0)), (lambda y: min(max(y / image.height, 0.0), 1.0))
    return across(left), down(top), across(right), down(bottom)


def settle(seen: Sequence[Thing], words: Sequence[str]) -> list[Box | None]:
    """Where each subject is: the surest things of its word; several of one word stand from left to right.

    Args:
        words: the class of each subject, in the order of the prompt; case makes no difference.
    """
    things = [Seen(*each) for each in seen]
    words = [key(word) for word in words]
    boxes: dict[str, list[Edges]] = {}
    for word, count in Counter(words).items():
        boxes[word] = sorted(_apart([thing for thing in things if key(thing.word) == word])[:count], key=_middle)
    # Where fewer are there than asked for, the ones asked for last are missing.
    return [Box(*boxes[word].pop(0)) if boxes[word] else None for word in words]


def _apart(things: Sequence[Seen]) -> list[Edges]:
    kept: list[Edges] = []
    for thing in sorted(things, key=lambda each: -each.score):
        if not kept or overlap(torch.tensor(thing.box), torch.tensor(kept)).max() <= SAME:
            kept.append(thing.box)
    return kept


def _middle(box: Edges) -> float:
    return box[0] + box[2]


def seen_subjects(
    images: Sequence[Image.Image],
    words: Sequence[str],
    own: Sequence[int],
    photos: Photos,
    places: Sequence[Box],
    scorers: Scorers,
    detector: Detector | Finder | None,
    margin: float,
) -> Tensor:
    """(subjects, pictures, width): what is seen of each subject in each picture; zeros where it is missing.

    Args:
        words, own: the class of each subject, and its number among the concepts of `photos`.
        places, margin: see `subject_crops`.
    """
    if isinstance(detector, Finder):
        rows = [
            _matched(detector, image, boxes, own, photos)
            for image, boxes in zip(images, detector.find_boxes(images), strict=True)
        ]
        return torch.stack(rows, dim=1)
    width = photos.embeddings.shape[1]
    crops = subject_crops(images, words, places, detector, margin)
    return torch.stack([embed_crops(scorers, part, width) for part in crops])


def _matched(finder: Finder, image: Image.Image, boxes: Sequence[Edges], own: Sequence[int], photos: Photos) -> Tensor:
    """(subjects, width): each thing is one subject at most, the pair that is most alike first; zeros for the rest."""
    found = torch.zeros(len(own), photos.embeddings.shape[1])
    if boxes:
        seen = finder.embed_boxes([image] * len(boxes), boxes)
        for subject, thing in pairs(photos.similarity(seen)[:, list(own)].T):
            found[subject] = seen[thing]
    return found


def pairs(likeness: Tensor) -> list[tuple[int, int]]:
    """Subjects and things one to one, the pair that is most alike first. likeness: (subjects, things)."""
    left = likeness.clone()
    chosen = []
    for _ in range(min(left.shape)):
        subject, thing = divmod(int(left.argmax()), left.shape[1])
        chosen.append((subject, thing))
        left[subject], left[:, thing] = -torch.inf, -torch.inf
    return chosen


def subject_crops(
    images: Sequence[Image.Image],
    words: Sequence[str],
    places: Sequence[Box],
    detector: Detector | None,
    margin: float,
) -> list[list[Image.Image | None]]:
    """[subject][picture]: what is seen of each subject; None where a detector looked for it in vain.

    Args:
        places: where subjects stand, for bases without a detector.
        margin: round a subject, in parts of half its side.
    """
    if detector is None:
        return [[crop_square(image, place, margin) for image in images] for place in places]
    found = [settle(seen, words) for seen in detector.detect(images, words)]
    return [
        [
            crop_square(image, box, margin) if (box := boxes[number]) else None
            for image, boxes in zip(images, found, strict=True)
        ]
        for number in range(len(words))
    ]


def embed_crops(scorers: Scorers, crops: Sequence[Image.Image | None], width: int) -> Tensor:
    """(crops, width): unit length; zeros for what was not found, so that it is like nobody."""
    embedded = torch.zeros(len(crops), width)
    there = [number for number, crop in enumerate(crops) if crop is not None]
    if there:
        embedded[there] = scorers.embed_identity([crops[number] for number in there]).to(embedded)  # type: ignore[misc]
    return embedded
