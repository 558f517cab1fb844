"""Looks at a training from outside, every so many minutes: the same prompts, the same held-out pictures each time."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from spectral_fusion.toybox.data import to_tensor
from spectral_fusion.toybox.evaluate import contact_sheet, paint_prompts
from spectral_fusion.toybox.models import make_scheduler
from spectral_fusion.toybox.runner import Runner
from spectral_fusion.toybox128 import data, models
from spectral_fusion.toybox128.caption import caption
from spectral_fusion.toybox128.layout import random_scene
from spectral_fusion.toybox128.paint import draw_scene
from spectral_fusion.toybox128.tokens import make_tokenizer
from spectral_fusion.toybox128.world import Scene

PROMPTS = (
    "a photo of a red cat on grass",
    "a photo of a blue car in the snow",
    "a woman with long black hair in a yellow dress on the beach",
    "a green robot with pink stripes in a kitchen",
    "a photo of a white rabbit and an orange ball in a room",
    "a purple dog with a yellow hat at night",
    "a man with a beard and glasses in a blue shirt and a red house in the mountains",
    "a photo of a pink mug, a green fish and a brown bear in a forest",
)
BANDS = (0, 250, 500, 750, 1000)  # timesteps


def held_out_scenes(
    count: int, *, marked: float, counts: Sequence[int] = (1, 1, 2, 2, 3, 4), seed: int = 0
) -> list[Scene]:
    """Scenes that no training drew: training numbers its generators in other words."""
    rng = random.Random(f"held out {seed} {marked} {counts}")
    return [random_scene(rng, marked=marked, counts=counts) for _ in range(count)]


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, scenes: Sequence[Scene]) -> float:
    """Peak signal-to-noise ratio of the autoencoder in dB, over all pixels of all scenes."""
    errors = []
    for scene in scenes:
        pixels = to_tensor(draw_scene(scene))[None]
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        errors.append(((decoded - pixels) / 2).square().mean())
    return (-10 * torch.stack(errors).mean().log10()).item()


@torch.no_grad()
def velocity_errors(unet: nn.Module, text_encoder: nn.Module, vae: AutoencoderKL, count: int = 64) -> dict[str, Tensor]:
    """The v-prediction error in each band of timesteps, with the right captions and with each other's."""
    rng, noises = random.Random("held out velocities"), torch.Generator().manual_seed(1)
    scenes = [random_scene(rng, marked=data.MARKED) for _ in range(count)]
    tokens = data.tokenize([caption(scene, rng, marks=True) for scene in scenes])
    pixels = torch.stack([to_tensor(draw_scene(scene)) for scene in scenes])
    latents = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    scheduler = make_scheduler()
    errors: dict[str, list[float]] = {"right": [], "shuffled": []}
    for low, high in pairwise(BANDS):
        noise = torch.randn(latents.shape, generator=noises)
        timesteps = low + ((torch.arange(count) + 0.5) / count * (high - low)).long()
        noisy, wanted = (
            scheduler.add_noise(latents, noise, timesteps),
            scheduler.get_velocity(latents, noise, timesteps),
        )
        for kind, order in (("right", tokens), ("shuffled", tokens.roll(1, 0))):
            predicted = unet(noisy, timesteps, text_encoder(order).last_hidden_state).sample
            errors[kind].append((predicted - wanted).square().mean().item())
    return {kind: torch.tensor(values) for kind, values in errors.items()}


class Verdict:
    """Called at each step: every `every` seconds it judges the averaged weights and writes to `folder`."""

    def __init__(self, name: str, runner: Runner, out: Path, every: float = 600.0) -> None:
        self.name, self.runner, self.folder, self.every = name, runner, out / "verdicts", every
        self.last = time.monotonic()

    def __call__(self, step: int, loss: float) -> None:
        if time.monotonic() - self.last < self.every:
            return
        state = torch.get_rng_state()
        record = {"stage": self.name, "step": step, "pictures": step * self.runner.settings.batch, **self.judge(step)}
        torch.set_rng_state(state)
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(record)
        with (self.folder / "verdicts.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)
        self.last = time.monotonic()

    def judge(self, step: int) -> dict[str, object]:
        """What is measured of the averaged weights."""
        if self.name in ("vae", "decoder"):
            return self._judge_autoencoder()
        return self._judge_denoiser(step) if self.name == "unet" else {}

    def _averaged(self, model: nn.Module, prefix: str = "") -> nn.Module:
        averages = dict(zip(self.runner.names, self.runner.average, strict=True))
        weights = {key: averages[prefix + key].cpu() for key in model.state_dict() if prefix + key in averages}
        model.load_state_dict({**model.state_dict(), **weights})
        return model.eval()

    def _judge_autoencoder(self) -> dict[str, object]:
        vae = models.make_vae()
        vae.load_state_dict({key: value.cpu() for key, value in self.runner.model.state_dict().items()})
        self._averaged(vae)
        scenes = {"plain": held_out_scenes(48, marked=0.0), "marked": held_out_scenes(48, marked=1.0)}
        return {kind: round(reconstruction_psnr(vae, each), 2) for kind, each in scenes.items()}

    def _judge_denoiser(self, step: int) -> dict[str, object]:
        unet = self._averaged(models.make_unet(), "unet.").to(memory_format=torch.channels_last)
        text_encoder, vae = self._averaged(models.make_text_encoder(), "text_encoder."), self.runner.model.vae
        errors = velocity_errors(unet, text_encoder, vae)
        pipeline = StableDiffusionPipeline(
            vae,
            text_encoder,
            make_tokenizer(),
            unet,
            make_scheduler(),
            None,
            None,
            requires_safety_checker=False,
        )
        images: list[Image.Image] = []
        for guidance in (1.0, 4.0):
            images += paint_prompts(pipeline, PROMPTS, guidance=guidance, steps=12)
        self.folder.mkdir(parents=True, exist_ok=True)
        contact_sheet(images, [*PROMPTS, *PROMPTS], scale=1).save(self.folder / f"{step:06d}.png")
        return {kind: [round(value, 4) for value in each.tolist()] for kind, each in errors.items()}
