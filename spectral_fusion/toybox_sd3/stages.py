"""The one stage of the miniature transformer's training: its model, its data and its loss."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextModel

from spectral_fusion import toybox128
from spectral_fusion.toybox.data import Example
from spectral_fusion.toybox.stages import Stage
from spectral_fusion.toybox128.data import CELL_LABELS
from spectral_fusion.toybox128.latents import LatentShards
from spectral_fusion.toybox128.stages import cell_loss
from spectral_fusion.toybox_sd3 import data, models
from spectral_fusion.toybox_sd3.attention import WrittenOut

CELL_WEIGHT = 0.2  # of the auxiliary loss
CELL_BLOCK = 3  # its features are what leaves this block
ZEROS = 256  # tokens that SD3's pipeline puts in the place of T5


class Denoiser(nn.Module):
    """The transformer, and what it learns from: toybox128's text encoder and autoencoder, both frozen.

    `cells` reads from a block in the middle what stands in each cell of the latents, as in toybox128's training; it is
    thrown away afterwards.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.transformer = models.make_transformer()
        self.attention = WrittenOut()
        self.transformer.set_attn_processor(self.attention)
        width = self.transformer.config.caption_projection_dim
        self.cells = nn.Linear(width, models.PATCH**2 * sum(CELL_LABELS))
        self.vae = vae.requires_grad_(False)
        trained = CLIPTextModel.from_pretrained(toybox128.WEIGHTS / "text_encoder", dtype=torch.float32)
        self.text_encoder = models.frozen_encoder(trained, models.DEEP)
        self._features: list[Tensor] = []
        self.transformer.transformer_blocks[CELL_BLOCK].register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, arguments: tuple, output: tuple[Tensor, Tensor]) -> None:
        self._features.append(output[1])

    def forward(self, noisy: Tensor, times: Tensor, tokens: Tensor, zeros: float) -> tuple[Tensor, Tensor]:
        """The predicted velocity, and the logits of `cell_labels` for each cell.

        Args:
            zeros: for how many tokens of zeros the one at the end of the text stands.
        """
        self._features.clear()
        self.attention.copies = zeros
        with torch.no_grad():
            words, pooled = models.both_readings(self.text_encoder, tokens)
        predicted = self.transformer(
            hidden_states=noisy,
            timestep=times,
            encoder_hidden_states=F.pad(words, (0, 0, 0, 1)),
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        side = models.LATENT_SIDE // models.PATCH
        cells = self.cells(self._features.pop()).transpose(1, 2).unflatten(2, (side, side))
        return predicted, F.pixel_shuffle(cells, models.PATCH)


def spread_shares(count: int, generator: torch.Generator) -> Tensor:
    """(count,) shares of noise, logit-normal and shifted (Esser et al., 2024): one of each of `count` equal parts."""
    order = torch.randperm(count, generator=generator)
    unit = (order + torch.rand(count, generator=generator)) / count
    share = torch.special.ndtri(unit.clamp(1e-4, 1 - 1e-4)).sigmoid()
    return models.SHIFT * share / (1 + (models.SHIFT - 1) * share)


def denoiser_loss(denoiser: Denoiser, batch: Example, generator: torch.Generator) -> Tensor:
    """The error of the velocity `noise - latents`, and the cross entropy of what is in each cell.

    Every other step has as many tokens of zeros as SD3's pipeline; the others have fewer, so that the model also draws
    with one, at a third of the cost.
    """
    latents = batch["latents"]
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    shares = spread_shares(len(latents), generator).to(latents)
    at = shares[:, None, None, None]
    few = ZEROS ** torch.rand((), generator=generator).item()
    zeros = ZEROS if torch.rand((), generator=generator) < 0.5 else few
    predicted, logits = denoiser((1 - at) * latents + at * noise, 1000 * shares, batch["tokens"], zeros)
    error = F.mse_loss(predicted.float(), noise - latents)
    return error + CELL_WEIGHT * cell_loss(logits.float(), batch["cells"])


def latent_source(name: str, seed: int, folder: Path, denoiser: nn.Module) -> LatentShards:
    """Captioned pictures as latents, kept in the run's folder."""
    empty = data.tokenize([""])[0]
    return LatentShards(data.captioned_record, denoiser.vae, empty, seed, folder / "latents", size=1024, window=16)


STAGES: dict[str, Stage] = {
    "transformer": Stage(
        Denoiser,
        latent_source,
        denoiser_loss,
        1800,
        32,
        2.5e-3,
        {"transformer.": "transformer"},
        needs_vae=True,
        compile=None,
        options={"optimizer": "muon", "autocast": True, "decay": 0.35, "average": 0.998, "warmup": 60},
    )
}
