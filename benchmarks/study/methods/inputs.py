"""What the methods that need data look at: the inputs of each layer while one concept alone is drawn."""

from __future__ import annotations

import random
from collections.abc import Sequence

from spectral_fusion.base.interface import Base
from spectral_fusion.toybox.world import caption, random_scene
from study.activations import Grams, linear_layers, watched_inputs
from study.methods.applied import applying
from study.methods.merging import summed
from study.painting import Request, paint
from study.settings import Settings
from study.training import Adapter


def concept_inputs(base: Base, adapters: Sequence[Adapter], settings: Settings) -> list[Grams]:
    """For each concept `x x^T` of each adapted layer, summed over pictures of it alone under its own weights."""
    found = []
    for adapter in adapters:
        words = f"{adapter.trigger} {adapter.class_word}"
        prompts = [settings.prompts[i % len(settings.prompts)] for i in range(settings.fusion_pictures)]
        requests = [Request(prompt.replace("{}", words), seed) for seed, prompt in enumerate(prompts)]
        with applying(summed)(base, [adapter]):
            found.append(_watch(base, requests, list(adapter.layers), settings))
    return found


def neutral_inputs(base: Base, layers: Sequence[str], settings: Settings) -> Grams:
    """`x x^T` of layers of the plain base, summed over pictures of scenes in which no concept is named."""
    rng = random.Random("neutral prompts")
    requests = [Request(caption(random_scene(rng), rng), seed) for seed in range(4 * settings.fusion_pictures)]
    return _watch(base, requests, layers, settings)


def _watch(base: Base, requests: list[Request], names: Sequence[str], settings: Settings) -> Grams:
    with watched_inputs(linear_layers(base, names)) as grams:
        paint(base, requests, settings, num_inference_steps=settings.fusion_inference_steps)
    return grams
