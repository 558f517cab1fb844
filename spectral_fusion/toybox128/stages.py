"""The stages of the second edition's training: for each the model, its data and its loss."""

from __future__ import annotations

from torch import nn

from spectral_fusion.toybox.data import Drawings
from spectral_fusion.toybox.stages import Stage, decoder_loss, normalise, vae_loss, with_frozen_encoder
from spectral_fusion.toybox128 import data, models


def _normalised(vae: nn.Module, seed: int) -> None:
    drawings = Drawings(data.scene_picture, seed, "scaling")
    normalise(vae, next(iter(drawings.batches(256, 0, 1)))["pixels"])


FAST = {"optimizer": "muon", "autocast": True}

STAGES: dict[str, Stage] = {
    "vae": Stage(
        models.make_vae,
        data.mixed_picture,
        vae_loss,
        4500,
        16,
        5e-3,
        {"": "vae"},
        finish=_normalised,
        options={**FAST, "decay": 0.5},
    ),
    "decoder": Stage(
        with_frozen_encoder,
        data.mixed_picture,
        decoder_loss,
        6000,
        16,
        3e-3,
        {"": "vae"},
        needs_vae=True,
        options={**FAST, "decay": 0.5},
    ),
}
