"""What the methods that need data look at: the inputs of each layer while one concept alone is drawn."""

from __future__ import annotations

import random
from collections.abc import Sequence

from diffusers import StableDiffusionPipeline

from spectral_fusion.toybox.world import caption, random_scene
from study.activations import Grams, linear_layers, watched_inputs
from study.methods.applied import applied
from study.methods.merging import summed
from study.painting import Request, paint
from study.settings import Settings
from study.training import Adapter


def concept_inputs(pipeline: StableDiffusionPipeline, adapters: Sequence[Adapter], settings: Settings) -> list[Grams]:
    """For each concept `x x^T` of each adapted layer, summed over pictures of it alone under its own weights."""
    found = []
    for adapter in adapters:
        words = f"{adapter.trigger} {adapter.class_word}"
        prompts = [settings.prompts[i % len(settings.prompts)] for i in range(settings.fusion_pictures)]
        requests = [Request(prompt.replace("{}", words), seed) for seed, prompt in enumerate(prompts)]
        with applied(pipeline, summed(pipeline, [adapter]), [adapter]):
            found.append(_watch(pipeline, requests, list(adapter.layers), settings))
    return found


def neutral_inputs(pipeline: StableDiffusionPipeline, layers: Sequence[str], settings: Settings) -> Grams:
    """`x x^T` of layers of the plain base, summed over pictures of scenes in which no concept is named."""
    rng = random.Random("neutral prompts")
    requests = [Request(caption(random_scene(rng), rng), seed) for seed in range(4 * settings.fusion_pictures)]
    return _watch(pipeline, requests, layers, settings)


def _watch(
    pipeline: StableDiffusionPipeline, requests: list[Request], names: Sequence[str], settings: Settings
) -> Grams:
    with watched_inputs(linear_layers(pipeline, names)) as grams:
        paint(pipeline, requests, settings, num_inference_steps=settings.fusion_inference_steps)
    return grams
