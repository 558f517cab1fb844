"""Trains toybox: `python -m spectral_fusion.toybox.train --stage vae|unet|text|identity|classifier|all --out DIR`."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from spectral_fusion.toybox import data, models
from spectral_fusion.toybox.data import Drawings, loader
from spectral_fusion.toybox.stages import STAGES, make_runner
from spectral_fusion.toybox.tokens import make_tokenizer

logger = logging.getLogger(__name__)

SCORERS = {"classifier": CLIPVisionModelWithProjection, "identity": CLIPVisionModelWithProjection, "text": CLIPModel}


def train_stage(
    name: str,
    out: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    init: Path | None = None,
    compiled: bool = False,
    on_step: Callable | None = None,
) -> None:
    """Trains one stage to its end, from its checkpoint if there is one, and writes its averaged weights to `out`.

    Args:
        init: a packed folder of finished weights to begin with, where there is no checkpoint.
        compiled: by torch.compile, which needs a C++ compiler.
    """
    vae = _trained_vae(out) if name in ("decoder", "unet") else None
    if vae is not None and name == "unet" and compiled:
        vae.encoder.compile(dynamic=False)
    runner = make_runner(name, out, seed=seed, steps=steps, vae=vae, compiled=compiled)
    if init is not None and runner.step == 0:
        runner.begin_with(_finished(name, init))
    runner.run(on_step)
    model = runner.use_average().cpu()
    if name == "vae":
        _normalize(model, seed)
    if name == "unet":
        model.unet.save_pretrained(out / "unet")
        model.text_encoder.save_pretrained(out / "text_encoder")
    else:
        model.save_pretrained(out / ("vae" if name == "decoder" else name))


def _trained_vae(out: Path) -> AutoencoderKL:
    vae = AutoencoderKL.from_pretrained(out / "vae").float().eval().requires_grad_(False)
    return vae.cuda() if torch.cuda.is_available() else vae


def _finished(name: str, folder: Path) -> dict[str, Tensor]:
    """The weights of one stage from a folder that `pack` wrote, named as in the stage's model."""
    parts = {"vae": {"": "vae"}, "decoder": {"": "vae"}, "unet": {"unet.": "unet", "text_encoder.": "text_encoder"}}
    weights: dict[str, Tensor] = {}
    for prefix, part in parts.get(name, {"": f"scorers/{name}"}).items():
        for path in (folder / part).glob("*.safetensors"):
            weights |= {prefix + key: tensor for key, tensor in load_file(path).items()}
    return weights


@torch.no_grad()
def _normalize(vae: AutoencoderKL, seed: int) -> None:
    """Centres the latents and sets `scaling_factor` to give them unit variance: what the denoiser's noise assumes.

    The mean goes into the biases of the two 1 x 1 convolutions round the latents, so that decoding stays the same.
    """
    batch = next(iter(loader(Drawings(data.captioned_picture, seed, "scaling"), 256, 0, 1)))
    latents = vae.encode(batch["pixels"]).latent_dist.mean
    mean = latents.mean(dim=(0, 2, 3))
    vae.quant_conv.bias[: len(mean)] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    deviation = (latents - mean[:, None, None]).std().item()
    vae.register_to_config(scaling_factor=round(1 / deviation, 5))


def pack(out: Path) -> Path:
    """Gathers the finished stages of `out` into `out/weights`: a diffusers folder in fp16, scorers beside it."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(out / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(out / "text_encoder"),
        tokenizer=make_tokenizer(),
        unet=UNet2DConditionModel.from_pretrained(out / "unet"),
        scheduler=models.make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (pipeline.vae, pipeline.unet):
        part.register_to_config(_name_or_path="toybox")  # where it was trained is nobody else's business
    folder = out / "weights"
    pipeline.to(torch.float16).save_pretrained(folder)
    for name, kind in SCORERS.items():
        if (out / name).exists():
            kind.from_pretrained(out / name).half().save_pretrained(folder / "scorers" / name)
        else:
            logger.warning("no finished scorer %r in %s: run --stage %s, then pack again", name, out, name)
    return folder


class _Printer:
    """Prints a line every so many seconds: step, smoothed loss, pictures a second."""

    def __init__(self, name: str, every: float = 20.0) -> None:
        self.name, self.every = name, every
        self.begin = self.shown = time.monotonic()
        self.steps, self.mean = 0, math.nan

    def __call__(self, step: int, loss: float) -> None:
        self.steps += 1
        self.mean = loss if math.isnan(self.mean) else 0.98 * self.mean + 0.02 * loss
        now = time.monotonic()
        if now - self.shown > self.every:
            self.shown = now
            rate = self.steps * STAGES[self.name].batch / (now - self.begin)
            print(f"{self.name} step {step} loss {self.mean:.4f} {rate:.0f} pictures/s", flush=True)


def main(
    stage: Annotated[str, typer.Option(help="Which model to train, or all in order.")] = "all",
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and finished weights.")] = Path("out/toybox"),
    seed: int = 0,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps; the stage's own number by default.")] = None,
    init: Annotated[Path | None, typer.Option(help="Packed weights to begin with instead of random ones.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Use torch.compile: needs a C++ compiler.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill saves too, as Ctrl-C does
    if stage not in (*STAGES, "all", "pack"):
        raise typer.BadParameter(f"unknown stage {stage!r}; choose one of: {', '.join(STAGES)}, all, pack")
    for name in STAGES if stage == "all" else [stage] if stage in STAGES else []:
        train_stage(name, out, seed=seed, steps=steps, init=init, compiled=compiled, on_step=_Printer(name))
    if stage in ("all", "pack"):
        print(f"packed in {pack(out)}")


if __name__ == "__main__":
    typer.run(main)
