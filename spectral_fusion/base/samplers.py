"""Samplers under the names that users of this field know (those of AUTOMATIC1111's web UI)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import diffusers
import torch
from diffusers import DPMSolverMultistepScheduler, SchedulerMixin

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

NO_ZERO_SNR = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "PNDMScheduler")


def check_sampler(name: str) -> str:
    """The sampler's name as it is written here. Raises InputError for an unknown one, with the nearest."""
    by_lower = {known.lower(): known for known in SAMPLERS}
    if name.lower() not in by_lower:
        near = get_close_matches(name.lower(), by_lower, n=1)
        advice = f"did you mean {by_lower[near[0]]!r}?" if near else f"choose one of: {', '.join(SAMPLERS)}"
        raise InputError(f"sampler {name!r} is unknown; {advice}")
    return by_lower[name.lower()]


def make_sampler(settings: Mapping[str, Any], name: str) -> SchedulerMixin:
    """A new scheduler of that name with a base's noise schedule and prediction type.

    Args:
        settings: the configuration of the base's own scheduler.

    Raises:
        InputError: the name is unknown.
    """
    kind, changes = SAMPLERS[check_sampler(name)]
    # A clipped sample is right for pixels in [-1, 1]; latents are not bounded.
    clip = {"clip_sample": False} if kind in ("DDIMScheduler", "DDPMScheduler", "LCMScheduler") else {}
    zero_snr = {"trained_betas": zero_snr_betas(settings)} if kind in NO_ZERO_SNR and is_zero_snr(settings) else {}
    return getattr(diffusers, kind).from_config(settings, **clip, **changes, **zero_snr)


@contextmanager
def steps_that_fit(scheduler: SchedulerMixin, sampler: str, steps: int) -> Iterator[None]:
    """What sets so many steps runs within the `with` block; the outcome is one that the sampler can go through.

    Raises:
        InputError: the sampler takes fewer, or would stand still or leave the noise schedule in one of them.
    """
    try:
        yield
    except (ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{sampler} cannot take {steps} steps; give fewer --steps") from error
    sigmas = getattr(scheduler, "sigmas", None)
    still = sigmas is not None and scheduler.order == 1 and bool((sigmas.diff() == 0).any())
    schedule = getattr(scheduler, "alphas_cumprod", None)  # flows have none
    outside = schedule is not None and float(scheduler.timesteps.max()) >= len(schedule)
    if still or outside:
        raise InputError(f"{sampler} cannot take {steps} steps on this base; give fewer --steps")


def is_zero_snr(settings: Mapping[str, Any]) -> bool:
    """Whether the last timestep of this noise schedule is pure noise."""
    return bool(settings.get("rescale_betas_zero_snr", False))


def zero_snr_betas(settings: Mapping[str, Any]) -> list[float]:
    """The rescaled noise schedule as plain betas, for samplers that cannot rescale it themselves."""
    kept = DPMSolverMultistepScheduler.from_config(settings).alphas_cumprod.double()
    return (1 - kept / torch.cat([torch.ones(1).double(), kept[:-1]])).tolist()
