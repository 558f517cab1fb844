"""The stages of toybox's training: for each the model, its data and its loss."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from spectral_fusion.errors import InputError
from spectral_fusion.toybox import data, models
from spectral_fusion.toybox.data import Drawings, Example
from spectral_fusion.toybox.runner import Runner, Settings, Source

KL_WEIGHT = 1e-3  # per latent number: enough for latents without noise-like detail, at under 0.5 dB
SQUARE_WEIGHT = 4.0  # small marks: few pixels, large errors
SCALE_WEIGHT = 0.25  # the decoder of a halved latent should give the halved picture

logger = logging.getLogger(__name__)


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


def with_frozen_encoder(vae: AutoencoderKL) -> AutoencoderKL:
    """The same autoencoder, of which only the way back from latents learns."""
    vae.requires_grad_(True)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    return vae


class Denoiser(nn.Module):
    """Text encoder and UNet as one module, so that one optimizer holds both; the autoencoder is frozen."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.text_encoder = models.make_text_encoder()
        self.unet = models.make_unet()
        self.vae = vae.requires_grad_(False)


def denoiser_loss(denoiser: Denoiser, batch: Example, generator: torch.Generator) -> Tensor:
    """Plain v-prediction error at uniform timesteps (Salimans and Ho 2022): large noise counts, where captions rule."""
    device = batch["pixels"].device
    scheduler = models.make_scheduler()
    with torch.no_grad():
        vae = denoiser.vae
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


@torch.no_grad()
def normalise(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Centres the latents and sets `scaling_factor` to give them unit variance: what the denoiser's noise assumes.

    The mean goes into the biases of the two 1 x 1 convolutions round the latents, so that decoding stays the same.
    """
    latents = vae.encode(pixels).latent_dist.mean
    mean = latents.mean(dim=(0, 2, 3))
    vae.quant_conv.bias[: len(mean)] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    deviation = (latents - mean[:, None, None]).std().item()
    vae.register_to_config(scaling_factor=round(1 / deviation, 5))


def _normalised_on_captioned(vae: nn.Module, seed: int) -> None:
    drawings = Drawings(data.captioned_picture, seed, "scaling")
    normalise(vae, next(iter(drawings.batches(256, 0, 1)))["pixels"])


def compile_parts(model: nn.Module) -> None:
    """Compiles each child of a model, for models that call their parts one by one."""
    for part in model.children():
        part.compile(dynamic=False)


def compile_whole(model: nn.Module) -> None:
    """Compiles a model that is called itself."""
    model.compile(dynamic=False)


def drawn(make: Callable[[random.Random], Example]) -> Callable[[str, int, Path, nn.Module], Source]:
    """The source of a stage that draws each of its examples anew."""
    return lambda name, seed, folder, model: Drawings(make, seed, name)


@dataclass(frozen=True)
class Stage:
    """How one stage is trained.

    Args:
        make_model: takes the trained autoencoder where the stage `needs_vae`, else nothing.
        source: gives the batches, from the stage's name, the seed, the run's folder and the model.
        parts: the folder that each part of the model is saved in, by the prefix of the part's weights.
        compile: how `--compile` prepares the model; None where a compiled one learns wrongly.
        finish: what is done to the trained model before it is saved; it also takes the seed.
    """

    make_model: Callable[..., nn.Module]
    source: Callable[[str, int, Path, nn.Module], Source]
    loss: Callable[..., Tensor]
    steps: int
    batch: int
    learning_rate: float
    parts: Mapping[str, str]
    needs_vae: bool = False
    finish: Callable[[nn.Module, int], None] | None = None
    compile: Callable[[nn.Module], None] | None = compile_parts
    options: Mapping[str, Any] = field(default_factory=dict)  # of the runner's `Settings`


STAGES: dict[str, Stage] = {
    "vae": Stage(
        models.make_vae,
        drawn(data.mixed_picture),
        vae_loss,
        3000,
        16,
        2e-3,
        {"": "vae"},
        finish=_normalised_on_captioned,
    ),
    "decoder": Stage(
        with_frozen_encoder, drawn(data.mixed_picture), decoder_loss, 6000, 16, 1e-3, {"": "vae"}, needs_vae=True
    ),
    "unet": Stage(
        Denoiser,
        drawn(data.captioned_picture),
        denoiser_loss,
        15000,
        32,
        1e-3,
        {"unet.": "unet", "text_encoder.": "text_encoder"},
        needs_vae=True,
    ),
    "classifier": Stage(
        models.make_classifier, drawn(data.labelled_picture), classifier_loss, 1500, 64, 1e-3, {"": "classifier"}
    ),
    "identity": Stage(
        models.make_identity_encoder, drawn(data.identity_pair), identity_loss, 1500, 64, 1e-3, {"": "identity"}
    ),
    "text": Stage(models.make_text_scorer, drawn(data.described_picture), text_loss, 1500, 128, 1e-3, {"": "text"}),
}


def make_runner(
    name: str,
    folder: Path,
    *,
    stages: Mapping[str, Stage] = STAGES,
    seed: int = 0,
    steps: int | None = None,
    vae: nn.Module | None = None,
    compiled: bool = False,
) -> Runner:
    """The runner of a stage of `stages`; one that `needs_vae` takes the trained `vae`.

    Args:
        compiled: by torch.compile, 1.6 times as fast.
    """
    stage = stages[name]
    settings = Settings(
        name, stage.steps if steps is None else steps, stage.batch, stage.learning_rate, seed, **stage.options
    )
    if stage.needs_vae and vae is None:
        raise InputError(f"stage {name!r} needs the trained autoencoder; train stage 'vae' first")
    torch.manual_seed(seed)
    model = stage.make_model(vae) if stage.needs_vae else stage.make_model()
    if compiled and stage.compile is None:
        logger.warning("the stage %s trains as it is, uncompiled: its gradients would be wrong", name)
    elif compiled and stage.compile is not None:
        stage.compile(model)
    source = stage.source(name, seed, folder, model)
    return Runner(settings, model, source, lambda batch, generator: stage.loss(model, batch, generator), folder)
