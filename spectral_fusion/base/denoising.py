"""The one denoising loop: from noise to latents, step by step, with classifier-free guidance where it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from spectral_fusion.base.condition import Condition, DenoisingStep, Generators, Start
from spectral_fusion.base.control import Control

Predict = Callable[[Tensor, Tensor, Condition], Tensor]
PredictControlled = Callable[[Tensor, Tensor, Condition, Control], Tensor]


def denoising_steps(
    predict: Predict,
    scheduler: SchedulerMixin,
    condition: Condition,
    noise: Tensor,
    *,
    uncondition: Condition | None = None,
    guidance_scale: float = 1.0,
    generator: Generators = None,
    start: Start | None = None,
    turns: Sequence[int] | None = None,
    controlled: tuple[PredictControlled, Control] | None = None,
) -> Iterator[DenoisingStep]:
    """See `Base.denoise`.

    Args:
        predict: noisy latents, a timestep, what they are told -> the denoiser's answer.
        scheduler: its timesteps are set.
        noise: on the device.
        controlled: a control picture, and what answers instead of `predict` in the steps in which it acts.
    """
    rows = [condition] if turns is None else [condition[row : row + 1] for row in range(len(condition))]
    tellings = [row if uncondition is None else Condition.cat([uncondition, row]) for row in rows]
    tellings = [told.to(noise.device) for told in tellings]
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    begun = Begun(scheduler, noise, start)
    latents = begun.latents
    for number, time in enumerate(begun.times, 1):
        given = scheduler.scale_model_input(latents, time) if hasattr(scheduler, "scale_model_input") else latents
        batch = given if uncondition is None else torch.cat([given, given])
        turn = 0 if turns is None else turns[len(turns) * (number - 1) // len(begun.times)]
        if controlled is not None and controlled[1].acts(number, len(begun.times)):
            answers = controlled[0](batch, time, tellings[turn], controlled[1]).to(latents.dtype)
        else:
            answers = predict(batch, time, tellings[turn]).to(latents.dtype)
        plain, wanted = (None, answers) if uncondition is None else answers.chunk(2)
        guided = wanted if plain is None else plain + guidance_scale * (wanted - plain)
        after = begun.kept(number, scheduler.step(guided, time, latents, **extra).prev_sample)
        yield DenoisingStep(number, len(begun.times), time, given, after, wanted, plain)
        latents = after


class Begun:
    """Where a denoising starts: at pure noise, or at a picture with as much noise as its strength asks for.

    Attributes:
        latents: what the first step is given, before the sampler's scaling.
        times: the timesteps that are done.
    """

    def __init__(self, scheduler: SchedulerMixin, noise: Tensor, start: Start | None) -> None:
        self.scheduler, self.noise, self.start = scheduler, noise, start
        self.times = scheduler.timesteps
        if start is not None and start.strength < 1:
            first = round((1 - start.strength) * len(self.times) / scheduler.order) * scheduler.order
            self.times = self.times[first:]
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(first)
        whole = len(self.times) == len(scheduler.timesteps)
        self.latents = noise * getattr(scheduler, "init_noise_sigma", 1.0) if whole else self._picture(0)

    def kept(self, number: int, latents: Tensor) -> Tensor:
        """The latents after so many steps, with what is to stay put back."""
        if self.start is None or self.start.keep is None:
            return latents
        keep = self.start.keep.to(latents)
        return keep * self._picture(number).to(latents) + (1 - keep) * latents

    def _picture(self, number: int) -> Tensor:
        """The picture with the noise of the step after so many."""
        assert self.start is not None
        clean = self.start.latents.to(self.noise)
        if number == len(self.times):
            return clean
        time = self.times[number : number + 1]
        if hasattr(self.scheduler, "add_noise"):
            return self.scheduler.add_noise(clean, self.noise, time)
        return self.scheduler.scale_noise(clean, time, self.noise)  # flows
