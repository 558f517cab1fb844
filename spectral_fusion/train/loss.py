"""The training loss of a diffusion model: target, timestep weights, masks."""

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


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of each sample, in float32.

    prediction, target: (batch, channels, height, width); mask: (batch, 1, height, width) in [0, 1], None for all
    ones -> (batch,). A mask's error is a mean over what it shows, so a small subject counts as much as a large one.
    """
    squared = (prediction.float() - target.float()).square()
    if mask is None:
        return squared.mean(dim=(1, 2, 3))
    mask = mask.float().expand_as(squared)
    return (squared * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp(min=1e-6)
