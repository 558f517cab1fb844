"""Which pictures an evaluation asks for: prompts of single concepts and of all of them, drawn from the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusers import StableDiffusionPipeline

from spectral_fusion.evaluate.boxes import region_boxes
from spectral_fusion.evaluate.config import SUBJECT, EvaluateConfig
from spectral_fusion.evaluate.methods import Adapter
from spectral_fusion.evaluate.result import Drawing, Setting
from spectral_fusion.generate import GenerateConfig, generate
from spectral_fusion.pipeline.regions import Region


@dataclass(frozen=True)
class Painter:
    """Draws what the pipeline holds at the moment; each prompt from every seed, in this order."""

    pipeline: StableDiffusionPipeline
    config: EvaluateConfig

    def single(self, setting: Setting, adapter: Adapter) -> list[Drawing]:
        """One concept in each picture."""
        return self._draw(setting, adapter.name, subject_words(adapter))

    def crowd(self, adapters: Sequence[Adapter], *, regions: bool) -> list[Drawing]:
        """All concepts in each picture, left to right; with `regions`, each prompt in its own part."""
        words = joined([subject_words(adapter) for adapter in adapters])
        return self._draw("regions" if regions else "together", None, words, adapters if regions else ())

    def plain(self, setting: Setting, words: str) -> list[Drawing]:
        """The prompts in words that the base knows."""
        return self._draw(setting, None, words)

    def one(self, adapter: Adapter) -> Drawing:
        """A single picture of the first prompt."""
        return self._draw("alone", adapter.name, subject_words(adapter), prompts=1, seeds=1)[0]

    def prompts(self, words: str) -> list[str]:
        """The prompts with their subject filled in."""
        return [prompt.replace(SUBJECT, words) for prompt in self.config.prompts]

    def _draw(
        self,
        setting: Setting,
        concept: str | None,
        words: str,
        in_regions: Sequence[Adapter] = (),
        *,
        prompts: int | None = None,
        seeds: int | None = None,
    ) -> list[Drawing]:
        drawings = []
        for template, prompt in list(zip(self.config.prompts, self.prompts(words), strict=True))[:prompts]:
            config = GenerateConfig(
                prompt=prompt,
                regions=regions_of(in_regions, template),
                seed=self.config.seed,
                num_images=self.config.seeds if seeds is None else seeds,
                num_inference_steps=self.config.num_inference_steps,
                guidance_scale=self.config.guidance_scale,
                sampler=self.config.sampler,
            )
            for picture in generate(self.pipeline, config):
                drawings.append(Drawing(setting, concept, prompt, picture.seed, picture.image))
        return drawings


def subject_words(adapter: Adapter) -> str:
    """How a prompt speaks of a concept: `<rex> dog`."""
    return f"{adapter.trigger} {adapter.class_word}"


def joined(subjects: Sequence[str]) -> str:
    """`dog, a cat and a robot`, to follow an "a"."""
    *first, last = subjects
    return f"{', a '.join(first)} and a {last}" if first else last


def regions_of(adapters: Sequence[Adapter], prompt: str) -> tuple[Region, ...]:
    """One region for each concept, side by side, with the whole prompt in each, or each would have a ground of its own.

    Args:
        prompt: `{}` stands for the subject.
    """
    boxes = region_boxes(len(adapters)) if adapters else []
    words = [prompt.replace(SUBJECT, subject_words(adapter)) for adapter in adapters]
    return tuple(Region(text, box) for text, box in zip(words, boxes, strict=True))
