"""The stages of toybox's training: for each the model, its data and its loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from spectral_fusion.toybox import data, models
from spectral_fusion.toybox.data import Drawings, Example
from spectral_fusion.toybox.runner import Runner, Settings

KL_WEIGHT = 1e-3  # per latent number: enough for latents without noise-like detail, at under 0.5 dB
SQUARE_WEIGHT = 4.0  # small marks: few pixels, large errors
SCALE_WEIGHT = 0.25  # the decoder of a halved latent should give the halved picture


def vae_loss(vae: nn.Module, batch: Example, generator: torch.Generator) -> Tensor:
    """Absolute and squared error, KL, and scale equivariance, which keeps latents smooth and so easy to denoise."""
    pixels = batch["pixels"]
    posterior = vae.encode(pixels).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(pixels.device)
    latents = posterior.mean + posterior.std * noise
    error = vae.decode(latents).sample - pixels
    few = latents[: max(1, len(latents) // 4)]
    small = vae.decode(F.avg_pool2d(few, 2)).sample - F.avg_pool2d(pixels[: len(few)], 2)
    kl = posterior.kl().mean() / latents[0].numel()
    return (
        error.abs().mean() + SQUARE_WEIGHT * error.square().mean() + SCALE_WEIGHT * small.abs().mean() + KL_WEIGHT * kl
    )


def decoder_loss(vae: nn.Module, batch: Example, generator: torch.Generator) -> Tensor:
    """The autoencoder's error for the latents that its frozen encoder gives: concepts and denoiser stay valid."""
    pixels = batch["pixels"]
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(pixels.device)
    error = vae.decode(posterior.mean + posterior.std * noise).sample - pixels
    return error.abs().mean() + SQUARE_WEIGHT * error.square().mean()


def with_frozen_encoder(vae: nn.Module) -> nn.Module:
    """The same autoencoder, of which only the way back from latents learns."""
    vae.requires_grad_(True)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    return vae


class Denoiser(nn.Module):
    """Text encoder and UNet as one module, so that one optimizer holds both."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = models.make_text_encoder()
        self.unet = models.make_unet()


def denoiser_loss(denoiser: Denoiser, vae: AutoencoderKL, batch: Example, generator: torch.Generator) -> Tensor:
    """Plain v-prediction error at uniform timesteps (Salimans and Ho 2022): large noise counts, where captions rule."""
    device = batch["pixels"].device
    scheduler = models.make_scheduler()
    with torch.no_grad():
        latents = vae.encode(batch["pixels"]).latent_dist.mean * vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=generator).to(device)
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), generator=generator).to(device)
    states = denoiser.text_encoder(batch["tokens"]).last_hidden_state
    predicted = denoiser.unet(scheduler.add_noise(latents, noise, timesteps), timesteps, states).sample
    return F.mse_loss(predicted, scheduler.get_velocity(latents, noise, timesteps))


def contrastive_loss(first: Tensor, second: Tensor, scale: Tensor | float) -> Tensor:
    """InfoNCE both ways between rows of the same number. first, second: (batch, width), of unit length."""
    logits = scale * first @ second.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def text_loss(scorer: nn.Module, batch: Example, generator: torch.Generator) -> Tensor:
    """CLIP's loss."""
    out = scorer(input_ids=batch["tokens"], pixel_values=batch["pixels"])
    return contrastive_loss(out.image_embeds, out.text_embeds, scorer.logit_scale.exp())


def identity_loss(encoder: nn.Module, batch: Example, generator: torch.Generator) -> Tensor:
    """Two views of one identity are close, all others of the batch are far."""
    first, second = (F.normalize(encoder(batch[key]).image_embeds, dim=-1) for key in ("first", "second"))
    return contrastive_loss(first, second, 14.0)


def classifier_loss(classifier: nn.Module, batch: Example, generator: torch.Generator) -> Tensor:
    """Cross entropy of the seven labels of `data.labels`."""
    logits = models.split_logits(classifier(batch["pixels"]).image_embeds)
    return torch.stack([F.cross_entropy(row, batch["labels"][:, i]) for i, row in enumerate(logits)]).mean()


@dataclass(frozen=True)
class Stage:
    """How one stage is trained."""

    make_model: Callable[[], nn.Module]
    make_example: Callable[..., Example]
    loss: Callable[..., Tensor]
    steps: int
    batch: int
    learning_rate: float


STAGES: dict[str, Stage] = {
    "vae": Stage(models.make_vae, data.mixed_picture, vae_loss, 3000, 16, 2e-3),
    "decoder": Stage(models.make_vae, data.mixed_picture, decoder_loss, 6000, 16, 1e-3),
    "unet": Stage(Denoiser, data.captioned_picture, denoiser_loss, 15000, 32, 1e-3),
    "classifier": Stage(models.make_classifier, data.labelled_picture, classifier_loss, 1500, 64, 1e-3),
    "identity": Stage(models.make_identity_encoder, data.identity_pair, identity_loss, 1500, 64, 1e-3),
    "text": Stage(models.make_text_scorer, data.described_picture, text_loss, 1500, 128, 1e-3),
}


def make_runner(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    vae: nn.Module | None = None,
    compiled: bool = False,
) -> Runner:
    """The runner of a stage; decoder and denoiser need the trained `vae`.

    Args:
        compiled: by torch.compile, 1.6 times as fast.
    """
    stage = STAGES[name]
    settings = Settings(name, stage.steps if steps is None else steps, stage.batch, stage.learning_rate, seed)
    torch.manual_seed(seed)
    model = stage.make_model() if name != "decoder" or vae is None else with_frozen_encoder(vae)
    if compiled:
        for part in model.children():
            part.compile(dynamic=False)

    def loss(batch: Example, generator: torch.Generator) -> Tensor:
        return stage.loss(model, *([vae] if name == "unet" else []), batch, generator)

    return Runner(settings, model, Drawings(stage.make_example, seed, name), loss, folder)
