"""Which pictures an evaluation asks for: prompts of single concepts and of all of them, drawn from the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from spectral_fusion.base.interface import Base
from spectral_fusion.base.regions import Box, Region
from spectral_fusion.concept import Concept
from spectral_fusion.evaluate.boxes import region_boxes
from spectral_fusion.evaluate.config import SUBJECT, EvaluateConfig
from spectral_fusion.evaluate.methods import Adapter
from spectral_fusion.evaluate.result import Drawing, Setting
from spectral_fusion.generation import GenerateConfig, generate


class Subject(Protocol):
    """Somebody to draw; an `Adapter` is one."""

    @property
    def name(self) -> str: ...
    @property
    def trigger(self) -> str: ...
    @property
    def class_word(self) -> str: ...


@dataclass(frozen=True)
class Painter:
    """Draws what the base holds at the moment; each prompt from every seed, in this order."""

    base: Base
    config: EvaluateConfig

    def single(self, setting: Setting, adapter: Adapter) -> list[Drawing]:
        """One concept in each picture."""
        return self._draw(setting, adapter.name, subject_words(adapter))

    def crowd(self, adapters: Sequence[Adapter], *, regions: bool) -> list[Drawing]:
        """All concepts in each picture, left to right; with `regions`, each prompt in its own part."""
        words = joined([subject_words(adapter) for adapter in adapters])
        return self._draw("regions" if regions else "together", None, words, adapters if regions else ())

    def placed(self, concepts: Sequence[Concept]) -> list[Drawing]:
        """All concepts in each picture, none of them fused: each drawn by itself, and put where the base has it."""
        words = joined([subject_words(concept) for concept in concepts])
        return self._draw("places", None, words, concepts, bound=concepts)

    def plain(self, setting: Setting, words: str, like: str | None = None) -> list[Drawing]:
        """The prompts in words that the base knows. `like`: those of the concept of that name."""
        return self._draw(setting, None, words, templates=self.templates(like))

    def one(self, adapter: Adapter) -> Drawing:
        """A single picture of the first prompt."""
        return self._draw("alone", adapter.name, subject_words(adapter), prompts=1, seeds=1)[0]

    def templates(self, concept: str | None) -> Sequence[str]:
        """The prompts of a concept without others, by name; None: of several in one picture."""
        return self.config.own_prompts.get(concept or "", self.config.prompts)

    def prompts(self, words: str, concept: str | None) -> list[str]:
        """The same with their subject filled in."""
        return [prompt.replace(SUBJECT, words) for prompt in self.templates(concept)]

    def _draw(
        self,
        setting: Setting,
        concept: str | None,
        words: str,
        in_regions: Sequence[Adapter] = (),
        *,
        templates: Sequence[str] | None = None,
        prompts: int | None = None,
        seeds: int | None = None,
        bound: Sequence[Concept] = (),
    ) -> list[Drawing]:
        drawings = []
        for template in list(templates or self.templates(concept))[:prompts]:
            prompt = template.replace(SUBJECT, words)
            regions = regions_of(in_regions, template, self.base.places(len(in_regions)) if in_regions else [])
            config = GenerateConfig(
                prompt=prompt,
                regions=to_be_found(bound_to(regions, bound)) if bound else regions,
                composite=self.config.composite if bound else 0.0,
                seed=self.config.seed,
                num_images=self.config.seeds if seeds is None else seeds,
                num_inference_steps=self.config.num_inference_steps,
                guidance_scale=self.config.guidance_scale,
                sampler=self.config.sampler,
            )
            for picture in generate(self.base, config, concepts=dict.fromkeys(bound, 1.0)):
                drawings.append(Drawing(setting, concept, prompt, picture.seed, picture.image))
        return drawings


def subject_words(subject: Subject) -> str:
    """How a prompt speaks of a concept: `<rex> dog`."""
    return f"{subject.trigger} {subject.class_word}"


def joined(subjects: Sequence[str]) -> str:
    """`dog, a cat and a robot`, to follow an "a"."""
    *first, last = subjects
    return f"{', a '.join(first)} and a {last}" if first else last


def regions_of(subjects: Sequence[Subject], prompt: str, places: Sequence[Box]) -> tuple[Region, ...]:
    """One region for each subject, side by side, each with the whole prompt and its own trigger alone.

    The whole prompt, or each region would draw one thing in the middle of a ground of its own: what stands where is
    settled by all regions together.

    Args:
        prompt: `{}` stands for the subjects.
        places: where each of them stands.
    """
    boxes = region_boxes(places)
    return tuple(
        Region(prompt.replace(SUBJECT, joined([subject_words(s) if s is own else s.class_word for s in subjects])), box)
        for own, box in zip(subjects, boxes, strict=True)
    )


def bound_to(regions: Sequence[Region], concepts: Sequence[Concept]) -> tuple[Region, ...]:
    """The regions, each with one of the concepts at work in it."""
    return tuple(
        replace(region, concepts=((concept.name, 1.0),)) for region, concept in zip(regions, concepts, strict=True)
    )


def to_be_found(regions: Sequence[Region]) -> tuple[Region, ...]:
    """The regions without their boxes: the model finds where they are."""
    return tuple(replace(region, box=None) for region in regions)
