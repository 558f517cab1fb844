"""Looks at the training from outside, every so many minutes: the same held-out pictures, the same prompts."""

from __future__ import annotations

import random
from itertools import pairwise

import torch
from torch import Tensor

from spectral_fusion.toybox.data import to_tensor
from spectral_fusion.toybox.runner import Runner
from spectral_fusion.toybox128 import verdict as toybox128
from spectral_fusion.toybox128.caption import caption
from spectral_fusion.toybox128.paint import draw_scene
from spectral_fusion.toybox_sd3 import data
from spectral_fusion.toybox_sd3.stages import ZEROS, Denoiser

PROMPTS = (
    "a photo of a red cat on grass",
    "a photo of a blue car in the snow",
    "a woman with long black hair in a yellow dress on the beach",
    "a green robot with pink stripes in a room",
    "a photo of a white rabbit and an orange ball in a room",
    "a purple dog with a yellow hat at night",
    "a photo of a red house and a yellow car on sand",
    "a photo of a pink mug, a green fish and a brown bear in a forest",
)
BANDS = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of noise


@torch.no_grad()
def velocity_errors(denoiser: Denoiser, count: int = 64) -> dict[str, list[float]]:
    """The error in each band of shares of noise, with the right captions and with each other's."""
    rng, noises = random.Random("held out velocities"), torch.Generator().manual_seed(1)
    scenes = [data.scene(rng) for _ in range(count)]
    tokens = data.tokenize([caption(scene, rng, marks=True) for scene in scenes])
    pixels = torch.stack([to_tensor(draw_scene(scene)) for scene in scenes])
    latents = denoiser.vae.encode(pixels).latent_dist.mean * denoiser.vae.config.scaling_factor
    errors: dict[str, list[float]] = {"right": [], "shuffled": []}
    for low, high in pairwise(BANDS):
        noise = torch.randn(latents.shape, generator=noises)
        shares = low + (torch.arange(count) + 0.5) / count * (high - low)
        at = shares[:, None, None, None]
        noisy = (1 - at) * latents + at * noise
        for kind, order in (("right", tokens), ("shuffled", tokens.roll(1, 0))):
            predicted, _ = denoiser(noisy, 1000 * shares, order, ZEROS)
            errors[kind].append(round((predicted - (noise - latents)).square().mean().item(), 4))
    return errors


@torch.no_grad()
def averaged(runner: Runner) -> Denoiser:
    """A copy of the model with the averaged weights."""
    model = Denoiser(runner.model.vae)
    averages: dict[str, Tensor] = dict(zip(runner.names, runner.average, strict=True))
    for name, weight in model.named_parameters():
        if name in averages:
            weight.copy_(averages[name])
    return model.eval()


class Verdict(toybox128.Verdict):
    """The same for this base's transformer."""

    def judge(self, step: int) -> dict[str, object]:
        """The errors of its predictions."""
        return {**velocity_errors(averaged(self.runner))}
