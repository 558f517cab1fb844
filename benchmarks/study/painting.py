"""Pictures in batches: what `spectral_fusion.generate` draws one by one, in a fraction of the time on small bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from spectral_fusion.pipeline.prompt import encode_prompts
from spectral_fusion.pipeline.regions import Region, regional_prompts
from spectral_fusion.pipeline.samplers import make_sampler
from study.failure import Diverged
from study.settings import Settings

BATCH = 16


@dataclass(frozen=True)
class Request:
    """One picture to draw."""

    prompt: str
    seed: int
    regions: tuple[Region, ...] = ()


@torch.no_grad()
def paint(
    pipeline: StableDiffusionPipeline,
    requests: Sequence[Request],
    settings: Settings,
    *,
    num_inference_steps: int | None = None,
) -> list[Image.Image]:
    """One picture for each request; a prompt and a seed give the same picture in whatever company.

    Args:
        num_inference_steps: None: the settings'.

    Raises:
        Diverged: a picture is not finite.
    """
    before = pipeline.scheduler
    pipeline.scheduler = make_sampler(pipeline, settings.sampler)
    try:
        alike: dict[tuple[Region, ...], list[int]] = {}
        for place, request in enumerate(requests):
            alike.setdefault(request.regions, []).append(place)
        pictures: dict[int, Image.Image] = {}
        for regions, places in alike.items():
            for start in range(0, len(places), BATCH):
                batch = places[start : start + BATCH]
                drawn = _batch(pipeline, [requests[place] for place in batch], settings, regions, num_inference_steps)
                pictures |= dict(zip(batch, drawn, strict=True))
        return [pictures[place] for place in range(len(requests))]
    finally:
        pipeline.scheduler = before


def _batch(
    pipeline: StableDiffusionPipeline,
    requests: Sequence[Request],
    settings: Settings,
    regions: Sequence[Region],
    num_inference_steps: int | None,
) -> list[Image.Image]:
    wanted = ["", *dict.fromkeys(request.prompt for request in requests)]
    encoded = encode_prompts(pipeline, [*wanted, *(region.prompt for region in regions)])
    rows = [wanted.index(request.prompt) for request in requests]
    latent = pipeline.unet.config.sample_size
    with regional_prompts(
        pipeline,
        regions,
        encoded[len(wanted) :],
        height=latent,
        width=latent,
        guided=settings.guidance_scale > 1,
    ):
        pixels = pipeline(
            prompt_embeds=encoded[rows],
            negative_prompt_embeds=encoded[:1].expand(len(rows), -1, -1),
            num_inference_steps=num_inference_steps or settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            output_type="pt",
        ).images
    if not torch.isfinite(pixels).all():
        raise Diverged("pictures hold NaN or infinity")
    return pipeline.image_processor.numpy_to_pil(pipeline.image_processor.pt_to_numpy(pixels))
