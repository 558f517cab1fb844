"""Several subjects in one picture, as the field judges it: each found, each itself, and all of them at once.

A subject that is not found counts 0; a picture is a success where all are found and each is nearest to its own photos.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from spectral_fusion.base.interface import Base
from spectral_fusion.base.regions import Box
from spectral_fusion.concept import Concept
from spectral_fusion.evaluate.config import SUBJECT, EvaluateConfig
from spectral_fusion.evaluate.finding import Detector, Finder, seen_subjects
from spectral_fusion.evaluate.painter import Subject, bound_to, joined, regions_of, subject_words, to_be_found
from spectral_fusion.evaluate.scorers import Scorers
from spectral_fusion.evaluate.similarity import Photos
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, Picture, generate
from spectral_fusion.generation.bound import Placeable

Way = Literal[
    "sum",
    "routed",
    "sum, regions",
    "routed, regions",
    "boxes",
    "boxes, detail",
    "boxes, composite",
    "auto",
    "auto, detail",
    "auto, composite",
]
WAYS: dict[Way, str] = {
    "sum": "fused by a sum, one prompt",
    "routed": "fused by routing, one prompt",
    "sum, regions": "fused by a sum, each prompt in its own box",
    "routed, regions": "fused by routing, each prompt in its own box",
    "boxes": "each concept bound to its box",
    "boxes, detail": "each concept bound to its box, and drawn again there in detail",
    "boxes, composite": "each subject drawn by itself, cut out, and put in its box",
    "auto": "each concept bound to the place that the model finds",
    "auto, detail": "each concept bound to the place that the model finds, and drawn again there in detail",
    "auto, composite": "each subject drawn by itself, cut out, and put in the place that the model finds",
}
FOUND = 0.2
"""Cosine of a crop with the nearest photo of any subject from which somebody counts as found there."""
CROP_MARGIN = 0.15
ALONE_MARGIN = 0.25


@dataclass(frozen=True)
class Gathering:
    """Pictures of one set of subjects drawn one way.

    way: one of `WAYS`, or what a benchmark calls another.
    identity: [picture][subject], the mean cosine with the own photos; 0 where the subject is not found.
    nearest: [picture][subject], whether it is found and its nearest photo is its own.
    confusion: the mean cosine with the other subjects' photos, minus what these photos have with the own ones.
    placed: [picture], whether places were found; True for ways that need none.
    """

    way: str
    names: tuple[str, ...]
    identity: list[list[float]]
    nearest: list[list[bool]]
    confusion: float
    placed: list[bool]
    seconds: float
    pictures: list[Picture] = field(repr=False)

    @property
    def success(self) -> list[bool]:
        """[picture], whether all are found and each is nearest to its own photos."""
        return [all(row) for row in self.nearest]


def gather(
    base: Base,
    concepts: Sequence[Concept],
    way: Way,
    photos: Photos,
    scorers: Scorers,
    config: EvaluateConfig,
    detector: Detector | Finder | None = None,
) -> Gathering:
    """Draw some concepts together and judge the pictures. The base is afterwards as before.

    Args:
        photos: of these concepts, in order.
        detector: finds the subjects; without it they are looked for where the base puts them.
    """
    began = time.perf_counter()
    pictures = [picture for template in config.prompts for picture in draw(base, concepts, way, template, config)]
    seconds = (time.perf_counter() - began) / len(pictures)
    return judged(way, pictures, seconds, concepts, photos, base.places(len(concepts)), scorers, detector)


def judged(
    way: str,
    pictures: list[Picture],
    seconds: float,
    subjects: Sequence[Subject],
    photos: Photos,
    places: Sequence[Box],
    scorers: Scorers,
    detector: Detector | Finder | None = None,
) -> Gathering:
    """Pictures of some subjects together, in whatever way they were drawn, with what is seen in them.

    Args:
        seconds: that a picture took.
        photos: of these subjects, in order.
        places: where the base puts so many, looked at where there is no detector.
    """
    words = [subject.class_word for subject in subjects]
    identity, nearest, strange = [], [], []
    images, own = [picture.image for picture in pictures], range(len(subjects))
    crops = seen_subjects(images, words, own, photos, places, scorers, detector, CROP_MARGIN)
    for seen in crops.unbind(1):
        found = (seen @ photos.embeddings.T).amax(1) >= FOUND
        alike, right, other = judge_crops(photos, seen)
        identity.append([float(value) if here else 0.0 for value, here in zip(alike, found, strict=True)])
        nearest.append([bool(value) and bool(here) for value, here in zip(right, found, strict=True)])
        strange.append(float(other.mean()))
    return Gathering(
        way,
        tuple(subject.name for subject in subjects),
        identity,
        nearest,
        fmean(strange) - photos_in_common(photos),
        [picture.parameters.settings.get("Places") != "not found" for picture in pictures],
        seconds,
        pictures,
    )


def judge_crops(photos: Photos, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each crop: cosine with its own photos, whether the nearest is its own, mean cosine with the others'.

    seen: (subjects, width), unit length.
    """
    cosines = photos.similarity(seen)
    numbers = torch.arange(len(seen))
    others = (cosines.sum(1) - cosines.diagonal()) / max(1, len(seen) - 1)
    return cosines.diagonal(), photos.nearest(seen) == numbers, others


def photos_in_common(photos: Photos) -> float:
    """The mean cosine of photos of different subjects; 0 where there is one subject alone."""
    if len(photos.owners.unique()) < 2:
        return 0.0
    cosines = photos.embeddings @ photos.embeddings.T
    return float(cosines[photos.owners[:, None] != photos.owners[None]].mean())


def draw(base: Base, concepts: Sequence[Concept], way: Way, template: str, config: EvaluateConfig) -> list[Picture]:
    """The pictures of one prompt, `{}` in it for all subjects."""
    settings = GenerateConfig(
        template.replace(SUBJECT, joined([subject_words(concept) for concept in concepts])),
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        sampler=config.sampler,
        seed=config.seed,
        num_images=config.seeds,
    )
    apart = regions_of(concepts, template, base.places(len(concepts)))
    if way.startswith(("boxes", "auto")):
        regions = bound_to(apart, concepts)
        if way.startswith("auto"):
            regions = to_be_found(regions)
        detail = config.detail if way.endswith("detail") else 0.0
        apart_from = config.composite if way.endswith("composite") else 0.0
        placed = replace(settings, regions=regions, detail=detail, composite=apart_from)
        return generate(base, placed, concepts=dict.fromkeys(concepts, 1.0))
    fusion = fuse(
        base,
        dict.fromkeys(concepts, 1.0),
        reduce="routed" if way.startswith("routed") else "sum",
        on_overlap="allow",
    )
    try:
        return generate(base, replace(settings, regions=apart) if way.endswith("regions") else settings)
    finally:
        fusion.undo()


def seen_alone(
    base: Base,
    concept: Concept,
    photos: Photos,
    scorers: Scorers,
    config: EvaluateConfig,
    detector: Detector | Finder | None = None,
) -> Tensor:
    """(pictures, width): what the identity scorer sees in pictures that hold one concept only.

    Args:
        photos: of this concept alone.
    """
    images = portraits(base, subject_words(concept), config, {concept: 1.0})
    words, places = [concept.class_word], base.places(1)
    (seen,) = seen_subjects(images, words, [0], photos, places, scorers, detector, ALONE_MARGIN)
    return seen


def portraits(
    base: Base, words: str, config: EvaluateConfig, concepts: Mapping[Placeable, float] | None = None
) -> list[Image.Image]:
    """Pictures of one subject, prompt by prompt.

    Args:
        words: what prompts call it.
        concepts: at work beside the base's weights; None for the base as it is.
    """
    images = []
    for template in config.prompts:
        settings = GenerateConfig(
            template.replace(SUBJECT, words),
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            sampler=config.sampler,
            seed=config.seed,
            num_images=config.seeds,
        )
        images += [picture.image for picture in generate(base, settings, concepts=concepts)]
    return images


def summary(gatherings: Sequence[Gathering], alone_by_name: Mapping[str, float]) -> dict[str, Any]:
    """Figures of one way over several sets: means over pictures, with 95 % intervals of the mean."""
    pictures = [(g.names, row) for g in gatherings for row in g.identity]
    identity = [fmean(row) for _, row in pictures]
    recovery = [fmean(row) / fmean(alone_by_name[name] for name in names) for names, row in pictures]
    right = [value for g in gatherings for row in g.nearest for value in row]
    success = [value for g in gatherings for value in g.success]
    return {
        "identity": interval(identity),
        "over alone": interval(recovery),
        "nearest right": interval([float(value) for value in right]),
        "success": interval([float(value) for value in success]),
        "confusion": fmean(g.confusion for g in gatherings),
        "placed": fmean(float(value) for g in gatherings for value in g.placed),
        "seconds": fmean(g.seconds for g in gatherings),
        "pictures": len(pictures),
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval."""
    spread = stdev(values) if len(values) > 1 else 0.0
    return fmean(values), 1.96 * spread / len(values) ** 0.5


def sheet_row(gathering: Gathering, count: int) -> list[Image.Image]:
    """The first pictures, for a contact sheet."""
    return [picture.image for picture in gathering.pictures[:count]]
