"""FLUX.1: a transformer of packed latents, told by T5 and a pooled CLIP text; its guidance is an input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from diffusers import FluxPipeline
from torch import Tensor

from spectral_fusion.base.condition import Condition
from spectral_fusion.base.flow import FlowTransformer
from spectral_fusion.base.joint import word_tokens
from spectral_fusion.base.layers import dtype_of

PATCH = 2
T5_TOKENS = 512  # as FLUX.1's pipeline has them
TRAINING_GUIDANCE = 1.0  # as kohya's guide has it for FLUX.1-dev


class Flux(FlowTransformer):
    """FLUX.1 dev and schnell. The guidance scale is an input of dev's; a negative prompt has no effect."""

    family = "flux"
    pipeline_class = "FluxPipeline"
    joint_blocks = ("single_transformer_blocks.",)
    pipeline: FluxPipeline

    @torch.no_grad()
    def condition(self, prompts: Sequence[str], *, weighted: bool = False) -> Condition:
        if weighted:
            prompts = self.check_prompts(prompts)
        words, pooled, _ = self.pipeline.encode_prompt(list(prompts), None, device=self.device)
        return Condition(words, pooled)

    def word_positions(self, prompt: str, words: Sequence[str]) -> list[int]:
        (text,) = self.check_prompts([prompt])
        return word_tokens(self.pipeline.tokenizer_2, text, words, T5_TOKENS)

    def answer(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        count, _, height, width = noisy.shape
        guidance = condition.extra.get("guidance")
        if guidance is None and self.transformer.config.guidance_embeds:
            guidance = torch.full((count,), TRAINING_GUIDANCE, device=noisy.device)
        answer = self.transformer(
            hidden_states=pack(noisy).to(dtype_of(self.transformer)),
            timestep=times.expand(count).to(noisy) / 1000,
            guidance=guidance,
            pooled_projections=condition.pooled,
            encoder_hidden_states=condition.embeds,
            txt_ids=noisy.new_zeros(condition.embeds.shape[1], 3),
            img_ids=place_ids(height // PATCH, width // PATCH).to(noisy),
            return_dict=False,
        )[0]
        return unpack(answer, height, width)

    def guided(
        self, condition: Condition, uncondition: Condition | None, scale: float
    ) -> tuple[Condition, Condition | None, float]:
        if self.transformer.config.guidance_embeds:
            scales = torch.full((len(condition),), scale, device=self.device)
            condition = replace(condition, extra={"guidance": scales})
        return condition, None, 1.0


def pack(latents: Tensor) -> Tensor:
    """(n, channels, height, width) -> (n, height/2 * width/2, 4 * channels): squares of four latents as one token."""
    count, channels, height, width = latents.shape
    squares = latents.reshape(count, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3, 5).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`."""
    squares = tokens.unflatten(1, (height // PATCH, width // PATCH)).unflatten(3, (-1, PATCH, PATCH))
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def place_ids(height: int, width: int) -> Tensor:
    """(height * width, 3): zero, row and column of each token, for rotary positions."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)
