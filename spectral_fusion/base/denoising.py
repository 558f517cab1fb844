"""The one denoising loop: from noise to latents, step by step, with classifier-free guidance where it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from spectral_fusion.base.condition import Condition, DenoisingStep, Generators

Predict = Callable[[Tensor, Tensor, Condition], Tensor]


def denoising_steps(
    predict: Predict,
    scheduler: SchedulerMixin,
    condition: Condition,
    noise: Tensor,
    *,
    uncondition: Condition | None = None,
    guidance_scale: float = 1.0,
    generator: Generators = None,
) -> Iterator[DenoisingStep]:
    """See `Base.denoise`.

    Args:
        predict: noisy latents, a timestep, what they are told -> the denoiser's answer.
        scheduler: its timesteps are set.
        noise: on the device.
    """
    told = condition if uncondition is None else Condition.cat([uncondition, condition])
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for number, time in enumerate(scheduler.timesteps, 1):
        given = scheduler.scale_model_input(latents, time) if hasattr(scheduler, "scale_model_input") else latents
        batch = given if uncondition is None else torch.cat([given, given])
        answers = predict(batch, time, told).to(latents.dtype)
        plain, wanted = (None, answers) if uncondition is None else answers.chunk(2)
        guided = wanted if plain is None else plain + guidance_scale * (wanted - plain)
        after = scheduler.step(guided, time, latents, **extra).prev_sample
        yield DenoisingStep(number, len(scheduler.timesteps), time, given, after, wanted, plain)
        latents = after
