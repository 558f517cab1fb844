"""Pictures in batches: what `spectral_fusion.generation` draws one by one, in a fraction of the time on small bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from spectral_fusion.base.condition import Condition
from spectral_fusion.base.interface import Base
from spectral_fusion.base.regions import Region
from spectral_fusion.training.loop import Diverged
from study.settings import Settings

BATCH = 16


@dataclass(frozen=True)
class Request:
    """One picture to draw."""

    prompt: str
    seed: int
    regions: tuple[Region, ...] = ()


def paint(
    base: Base, requests: Sequence[Request], settings: Settings, *, num_inference_steps: int | None = None
) -> list[Image.Image]:
    """One picture for each request; a prompt and a seed give the same picture in whatever batch.

    Args:
        num_inference_steps: None: the settings'.

    Raises:
        Diverged: a picture is not finite.
    """
    alike: dict[tuple[Region, ...], list[int]] = {}
    for place, request in enumerate(requests):
        alike.setdefault(request.regions, []).append(place)
    pictures: dict[int, Image.Image] = {}
    for places in alike.values():
        for start in range(0, len(places), BATCH):
            batch = places[start : start + BATCH]
            steps = num_inference_steps or settings.num_inference_steps
            pictures |= zip(batch, _batch(base, [requests[place] for place in batch], settings, steps), strict=True)
    return [pictures[place] for place in range(len(requests))]


def _batch(base: Base, requests: Sequence[Request], settings: Settings, steps: int) -> list[Image.Image]:
    """The pictures of requests with the same regions."""
    regions, guided = requests[0].regions, settings.guidance_scale > 1
    wanted = ["", *dict.fromkeys(request.prompt for request in requests)]
    told = base.condition([*wanted, *(region.prompt for region in regions)], weighted=True)
    rows = [wanted.index(request.prompt) for request in requests]
    shape = base.latent_shape(base.size, base.size)
    sources = [torch.Generator().manual_seed(request.seed) for request in requests]
    with base.regions(regions, told[len(wanted) :], size=shape[1:], guided=guided):
        *_, last = base.denoise(
            Condition.cat([told[row : row + 1] for row in rows]),
            torch.stack([torch.randn(shape, generator=source, dtype=told.embeds.dtype) for source in sources]),
            sampler=settings.sampler,
            steps=steps,
            uncondition=Condition.cat([told[:1]] * len(rows)) if guided else None,
            guidance_scale=settings.guidance_scale,
            generator=sources,
        )
    if not torch.isfinite(last.latents).all():
        raise Diverged("pictures hold NaN or infinity")
    return base.decode(last.latents)
