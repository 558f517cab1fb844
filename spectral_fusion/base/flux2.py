"""FLUX.2-klein: packed latents of a batch-normalised autoencoder, told by three layers of a language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import Flux2KleinPipeline
from PIL import Image
from torch import Tensor

from spectral_fusion.base.condition import Condition, Posterior
from spectral_fusion.base.flow import USUAL_STEPS, FlowTransformer, as_chat
from spectral_fusion.base.layers import dtype_of
from spectral_fusion.base.offload import work_device

PATCH = 2
MAX_WORDS = 512  # as the pipeline has them


class Flux2Klein(FlowTransformer):
    """FLUX.2-klein, base and distilled; a distilled one takes no guidance. Latents are squares of four, as one."""

    family = "flux2-klein"
    pipeline_class = "Flux2KleinPipeline"
    joint_blocks = ("single_transformer_blocks.",)
    pipeline: Flux2KleinPipeline

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return self.vae.config.latent_channels * PATCH**2, height // self.multiple, width // self.multiple

    @property
    def _normal(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel of packed latents, (1, channels, 1, 1), float32."""
        norm = self.vae.bn
        deviation = (norm.running_var.float() + self.vae.config.batch_norm_eps).sqrt()
        return norm.running_mean.float()[None, :, None, None], deviation[None, :, None, None]

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Posterior:
        found = self.vae.encode(pixels.to(work_device(self.vae), self.vae.dtype)).latent_dist
        mean, deviation = self._normal
        return Posterior(
            ((squares(found.mean.float()) - mean) / deviation).cpu(), (squares(found.std.float()) / deviation).cpu()
        )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        mean, deviation = self._normal
        plain = unsquare(latents.to(mean) * deviation + mean).to(work_device(self.vae), self.vae.dtype)
        return self.pipeline.image_processor.postprocess(self.vae.decode(plain).sample)

    def shift(self, shape: tuple[int, int], steps: int = USUAL_STEPS) -> float:
        """Of the picture's tokens and the number of steps, as the model's own samplers fit it."""
        tokens = shape[0] * shape[1]
        many = 0.00016927 * tokens + 0.45666666
        if tokens > 4300:
            return math.exp(many)
        few = 8.73809524e-05 * tokens + 1.89833333
        return math.exp(many + (few - many) * (200 - steps) / 190)

    @property
    def takes_negative(self) -> bool:
        return not self.pipeline.config.is_distilled

    @property
    def reader(self) -> tuple[Any, int]:
        return self.pipeline.tokenizer, MAX_WORDS

    def told(self, text: str) -> str:
        return as_chat(self.pipeline.tokenizer, text, thinking=False)

    @torch.no_grad()
    def condition(self, prompts: Sequence[str], *, weighted: bool = False) -> Condition:
        if weighted:
            prompts = self.check_prompts(prompts)
        words, _ = self.pipeline.encode_prompt(list(prompts), device=self.device)
        return Condition(words)

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def answer(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        count, _, height, width = noisy.shape
        words = torch.cat([places(1, 1, length) for length in self.text_lengths(condition)], 1)
        answer = self.transformer(
            hidden_states=noisy.flatten(2).transpose(1, 2).to(dtype_of(self.transformer)),
            timestep=times.expand(count).to(noisy) / 1000,
            guidance=None,
            encoder_hidden_states=condition.embeds,
            txt_ids=words.to(noisy.device).expand(count, -1, -1),
            img_ids=places(height, width, 1).to(noisy.device).expand(count, -1, -1),
            return_dict=False,
        )[0]
        return answer.transpose(1, 2).unflatten(2, (height, width))

    def guided(
        self, condition: Condition, uncondition: Condition | None, scale: float
    ) -> tuple[Condition, Condition | None, float]:
        return condition, None if self.pipeline.config.is_distilled else uncondition, scale


def squares(latents: Tensor) -> Tensor:
    """(n, channels, height, width) -> (n, 4 * channels, height/2, width/2)."""
    count, channels, height, width = latents.shape
    split = latents.reshape(count, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return split.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def unsquare(latents: Tensor) -> Tensor:
    """The inverse of `squares`."""
    split = latents.unflatten(1, (-1, PATCH, PATCH)).permute(0, 1, 4, 2, 5, 3)
    return split.flatten(4, 5).flatten(2, 3)


def places(height: int, width: int, length: int) -> Tensor:
    """(1, height * width * length, 4): picture, row, column and word of each token, for rotary positions."""
    sides = (torch.arange(side) for side in (1, height, width, length))
    return torch.cartesian_prod(*sides)[None]
