"""Samplers under the names that users of this field know (those of AUTOMATIC1111's web UI)."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import diffusers
from diffusers import SchedulerMixin
from torch import Tensor

from spectral_fusion.base.condition import Start
from spectral_fusion.errors import InputError

# Name -> class in diffusers and its settings.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2M SDE Karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "LCM": ("LCMScheduler", {}),
}


def make_sampler(settings: Mapping[str, Any], name: str) -> SchedulerMixin:
    """A new scheduler of that name with a base's noise schedule and prediction type.

    Args:
        settings: the configuration of the base's own scheduler.

    Raises:
        InputError: the name is unknown.
    """
    by_lower = {known.lower(): known for known in SAMPLERS}
    if name.lower() not in by_lower:
        near = get_close_matches(name.lower(), by_lower, n=1)
        advice = f"did you mean {by_lower[near[0]]!r}?" if near else f"choose one of: {', '.join(SAMPLERS)}"
        raise InputError(f"sampler {name!r} is unknown; {advice}")
    kind, changes = SAMPLERS[by_lower[name.lower()]]
    # A clipped sample is right for pixels in [-1, 1]; latents are not bounded.
    clip = {"clip_sample": False} if kind in ("DDIMScheduler", "DDPMScheduler", "LCMScheduler") else {}
    return getattr(diffusers, kind).from_config(settings, **clip, **changes)


class Begun:
    """Where a denoising starts: at pure noise, or at a picture with as much noise as its strength asks for.

    Attributes:
        latents: what the first step is given, before the sampler's scaling.
        times: the timesteps that are done.
    """

    def __init__(self, scheduler: Any, noise: Tensor, start: Start | None) -> None:
        self.scheduler, self.noise, self.start = scheduler, noise, start
        self.times = scheduler.timesteps
        if start is not None and start.strength < 1:
            first = round((1 - start.strength) * len(self.times) / scheduler.order) * scheduler.order
            self.times = self.times[first:]
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(first)
        whole = len(self.times) == len(scheduler.timesteps)
        self.latents = noise * scheduler.init_noise_sigma if whole else self._picture(0)

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
        return self.scheduler.add_noise(clean, self.noise, self.times[number : number + 1])
