"""What a denoising diffusion model is trained on: target and timestep weights (DDPM, Ho et al., 2020)."""

import torch
from diffusers import DDPMScheduler, SchedulerMixin
from diffusers.training_utils import compute_snr
from torch import Tensor

from spectral_fusion.errors import InputError

PREDICTION_TYPES = ("epsilon", "v_prediction")


def noise_scheduler(scheduler: SchedulerMixin) -> DDPMScheduler:
    """The forward process that belongs to a pipeline's sampler.

    Raises:
        InputError: the base predicts something else than noise or velocity.
    """
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        raise InputError(f"the base predicts {kind!r}; training knows {' and '.join(PREDICTION_TYPES)}")
    return DDPMScheduler.from_config(scheduler.config)


def prediction_target(scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet should answer: the noise, or the velocity of "Progressive Distillation" (Salimans and Ho, 2022).

    latents, noise: (batch, channels, height, width); timesteps: (batch,) -> the shape of `latents`.
    """
    if scheduler.config.prediction_type == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    return noise


def min_snr_weights(scheduler: DDPMScheduler, timesteps: Tensor, gamma: float) -> Tensor:
    """Loss weights of "Efficient Diffusion Training via Min-SNR Weighting Strategy" (Hang et al., 2023), (batch,).

    min(SNR, gamma) / SNR for epsilon-prediction, min(SNR, gamma) / (SNR + 1) for v-prediction; ones for gamma 0.
    """
    if gamma == 0:
        return torch.ones(len(timesteps), device=timesteps.device)
    snr = compute_snr(scheduler, timesteps)
    if scheduler.config.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)
