"""The stages of the second edition's training: for each the model, its data and its loss."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from spectral_fusion.toybox.data import Drawings, Example
from spectral_fusion.toybox.models import make_scheduler
from spectral_fusion.toybox.norm import with_fast_norms
from spectral_fusion.toybox.stages import (
    Stage,
    compile_whole,
    decoder_loss,
    drawn,
    identity_loss,
    normalise,
    vae_loss,
    with_frozen_encoder,
)
from spectral_fusion.toybox128 import data, detector, models, reader
from spectral_fusion.toybox128.backgrounds import SIZE
from spectral_fusion.toybox128.latents import LatentShards

CELL_WEIGHT = 0.1  # of the auxiliary loss


def _normalised(vae: nn.Module, seed: int) -> None:
    drawings = Drawings(data.scene_picture, seed, "scaling")
    normalise(vae, next(iter(drawings.batches(256, 0, 1)))["pixels"])


class Denoiser(nn.Module):
    """Text encoder and UNet as one module, so that one optimizer holds both; the autoencoder is frozen.

    `cells` reads from the decoding half of the UNet what stands in each cell of the latents. It is thrown away after
    training: the drawn world has labels of its own, and a UNet that has to predict them learns words sooner (the idea
    of Yu et al. 2024, "Representation alignment", with labels in place of another model's features).
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.text_encoder = models.make_text_encoder()
        self.unet = with_fast_norms(models.make_unet())
        # PyTorch's fused attention has a slow backward pass on a CPU: written out, a step takes three quarters.
        self.unet.set_attn_processor(AttnProcessor())
        self.text_encoder.set_attn_implementation("eager")
        self.cells = nn.Conv2d(models.WIDTHS[1], sum(data.CELL_LABELS), 1)
        self.vae = vae.requires_grad_(False)
        self._features: list[Tensor] = []
        self.unet.up_blocks[1].register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, arguments: tuple, output: Tensor) -> None:
        self._features.append(output)

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The predicted velocity, and the logits of `data.cell_labels` for each cell."""
        self._features.clear()
        states = self.text_encoder(tokens).last_hidden_state
        predicted = self.unet(noisy, timesteps, states).sample
        return predicted, self.cells(self._features.pop())


def spread_timesteps(count: int, generator: torch.Generator, total: int = 1000) -> Tensor:
    """One timestep of each of `count` equal parts, in random order; large noise, where captions rule, more often."""
    order = torch.randperm(count, generator=generator)
    unit = (order + torch.rand(count, generator=generator)) / count
    return (unit.pow(0.8) * total).long().clamp_(max=total - 1)


def denoiser_loss(denoiser: Denoiser, batch: Example, generator: torch.Generator) -> Tensor:
    """v-prediction error (Salimans and Ho 2022), and the cross entropy of what is in each cell."""
    latents, scheduler = batch["latents"], make_scheduler()
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    timesteps = spread_timesteps(len(latents), generator).to(latents.device)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    predicted, logits = denoiser(noisy, timesteps, batch["tokens"])
    error = F.mse_loss(predicted.float(), scheduler.get_velocity(latents, noise, timesteps))
    return error + CELL_WEIGHT * cell_loss(logits.float(), batch["cells"])


def cell_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Cross entropy of the three maps. logits: (batch, sum of CELL_LABELS, 16, 16); cells: (batch, 3, 16, 16)."""
    maps = logits.split(data.CELL_LABELS, dim=1)
    return torch.stack([F.cross_entropy(each, cells[:, i].long()) for i, each in enumerate(maps)]).mean()


def latent_source(name: str, seed: int, folder: Path, denoiser: nn.Module) -> LatentShards:
    """Captioned pictures as latents, kept in the run's folder."""
    return LatentShards(data.captioned_record, denoiser.vae, data.tokenize([""])[0], seed, folder / "latents")


def _decoder_only(vae: AutoencoderKL) -> nn.Module:
    return with_fast_norms(with_frozen_encoder(vae))


def _new_vae() -> nn.Module:
    return with_fast_norms(models.make_vae())


def _scorer(size: int, outputs: int) -> nn.Module:
    model = models.make_vision(size, outputs)
    model.set_attn_implementation("eager")  # as for the denoiser
    return model


FAST = {"optimizer": "muon", "autocast": True}

STAGES: dict[str, Stage] = {
    "vae": Stage(
        _new_vae,
        drawn(data.mixed_picture),
        vae_loss,
        4500,
        16,
        5e-3,
        {"": "vae"},
        finish=_normalised,
        options={**FAST, "decay": 0.5},
    ),
    "decoder": Stage(
        _decoder_only,
        drawn(data.mixed_picture),
        decoder_loss,
        6000,
        16,
        3e-3,
        {"": "vae"},
        needs_vae=True,
        options={**FAST, "decay": 0.5},
    ),
    "unet": Stage(
        Denoiser,
        latent_source,
        denoiser_loss,
        40_000,
        32,
        2.5e-3,
        {"unet.": "unet", "text_encoder.": "text_encoder"},
        needs_vae=True,
        # Compiled by torch 2.13 for a CPU, the queries and keys of most attention layers get gradients of zero, and the
        # loss doubles within a hundred steps.
        compile=None,
        options=FAST,
    ),
    "detector": Stage(
        partial(_scorer, SIZE, detector.OUTPUTS),
        drawn(detector.labelled_record),
        detector.detector_loss,
        1500,
        32,
        2e-3,
        {"": "detector"},
        compile=compile_whole,
        options={**FAST, "decay": 0.6},
    ),
    "reader": Stage(
        partial(models.make_reader, reader.OUTPUTS),
        drawn(reader.labelled_view),
        reader.reader_loss,
        3000,
        64,
        5e-3,
        {"": "reader"},
        compile=compile_whole,
        options={**FAST, "decay": 0.6},
    ),
    "identity": Stage(
        partial(_scorer, data.VIEW, 128),
        drawn(data.identity_pair),
        identity_loss,
        1500,
        64,
        2e-3,
        {"": "identity"},
        compile=compile_whole,
        options={**FAST, "decay": 0.6},
    ),
}
