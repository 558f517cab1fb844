"""Trains the miniature transformer: `python -m spectral_fusion.toybox_sd3.train --init WEIGHTS --out DIR`."""

from __future__ import annotations

from pathlib import Path

import torch
import typer
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModel

from spectral_fusion import toybox128
from spectral_fusion.toybox.train import Edition, command, load_as_single
from spectral_fusion.toybox_sd3.models import DEEP, SHALLOW, frozen_encoder, make_scheduler, make_tokenizer, silent_t5
from spectral_fusion.toybox_sd3.stages import STAGES
from spectral_fusion.toybox_sd3.verdict import Verdict


def pack(out: Path) -> Path:
    """Gathers `out/transformer` and what it was trained beside into `out/weights`: a diffusers folder in fp16."""
    trained = CLIPTextModel.from_pretrained(toybox128.WEIGHTS / "text_encoder", dtype=torch.float32)
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_pretrained(out / "transformer"),
        scheduler=make_scheduler(),
        vae=AutoencoderKL.from_pretrained(toybox128.WEIGHTS / "vae"),
        text_encoder=frozen_encoder(trained, DEEP),
        tokenizer=make_tokenizer(),
        text_encoder_2=frozen_encoder(trained, SHALLOW),
        tokenizer_2=make_tokenizer(),
        text_encoder_3=silent_t5(),
        tokenizer_3=make_tokenizer(),
    )
    pipeline.vae.register_to_config(shift_factor=0.0)  # SD3's pipeline adds one, and toybox128's has none
    for part in (pipeline.vae, pipeline.transformer):
        part.register_to_config(_name_or_path="toybox-sd3")  # where it was trained is nobody else's business
    folder = out / "weights"
    pipeline.to(torch.float16).save_pretrained(folder)
    for encoder in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        load_as_single(folder / encoder / "config.json")
    return folder


TOYBOX_SD3 = Edition("toybox-sd3", STAGES, make_tokenizer, make_scheduler, {}, watch=Verdict, pack=pack)

main = command(TOYBOX_SD3)

if __name__ == "__main__":
    typer.run(main)
