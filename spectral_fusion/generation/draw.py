"""One pass of denoising with concepts in their places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spectral_fusion.base.condition import DenoisingStep, Start
from spectral_fusion.base.interface import Base
from spectral_fusion.generation.bound import Live, bound
from spectral_fusion.generation.config import GenerateConfig
from spectral_fusion.generation.fitting import fitted
from spectral_fusion.reading.modes import BLACK


class Stopped(Exception):
    """The caller has had enough."""


@dataclass(frozen=True)
class Pass:
    """What one pass begins from.

    Attributes:
        size: height and width in pixels.
        seed: of the noise. The generator is on the CPU, so that a seed means the same noise on every device.
        start: a picture to begin from; None: pure noise.
    """

    size: tuple[int, int]
    seed: int
    start: Start | None = None


def draw(
    base: Base,
    config: GenerateConfig,
    live: Live,
    begin: Pass,
    on_step: Callable[[DenoisingStep], bool | None] = lambda _: None,
    *,
    until: int | None = None,
) -> Tensor:
    """The latents of one picture.

    Args:
        on_step: told each step; False stops.
        until: so many steps are enough.

    Raises:
        Stopped: `on_step` said so.
    """
    shape = base.latent_shape(*begin.size)
    source = torch.Generator().manual_seed(begin.seed)
    guided = config.guidance_scale > 1
    control = config.control and replace(config.control, image=fitted(config.control.image, begin.size, BLACK))
    with bound(base, config, live, shape[1:]) as (placement, told):
        noise = torch.randn(1, *shape, generator=source, dtype=told.own.embeds.dtype)
        steps = base.denoise(
            told.own[1 : len(told.own)],
            noise,
            sampler=config.sampler,
            steps=config.num_inference_steps,
            uncondition=told.own[0:1] if guided else None,
            guidance_scale=config.guidance_scale,
            generator=source,
            start=begin.start,
            turns=told.turns,
            control=control,
        )
        latents = noise if begin.start is None else begin.start.latents
        for step in steps:
            latents = step.latents
            placement.advance(step.number / step.count)
            if on_step(step) is False:
                raise Stopped
            if step.number == until:
                break
    return latents
