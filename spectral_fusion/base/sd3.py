"""Stable Diffusion 3 and 3.5: a joint-attention transformer told by two CLIPs and, where it is loaded, T5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import SchedulerMixin, StableDiffusion3Pipeline
from torch import Tensor

from spectral_fusion.base.condition import Condition
from spectral_fusion.base.flow import FlowTransformer
from spectral_fusion.base.joint import word_tokens
from spectral_fusion.base.layers import dtype_of

MAX_WORDS = 256  # of T5, as the pipeline has it by default


class StableDiffusion3(FlowTransformer):
    """Stable Diffusion 3 and 3.5. Brackets in prompts are text: the words of T5 have no weights."""

    family = "sd3"
    pipeline_class = "StableDiffusion3Pipeline"
    text_first = False
    pipeline: StableDiffusion3Pipeline

    @property
    def size(self) -> int:
        return self.transformer.config.sample_size * self.pipeline.vae_scale_factor

    @property
    def patch(self) -> int:
        return self.transformer.config.patch_size

    @property
    def reader(self) -> tuple[Any, int]:
        if self.pipeline.text_encoder_3 is None:
            return self.pipeline.tokenizer, self.pipeline.tokenizer_max_length
        return self.pipeline.tokenizer_3, MAX_WORDS

    def set_steps(self, scheduler: SchedulerMixin, steps: int) -> None:
        """In equal steps of the scheduler's own range, as SD 3's pipeline does."""
        scheduler.set_timesteps(steps, device=self.device)

    @torch.no_grad()
    def condition(self, prompts: Sequence[str], *, weighted: bool = False) -> Condition:
        if weighted:
            prompts = self.check_prompts(prompts)
        words, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), None, None, device=self.device, do_classifier_free_guidance=False
        )
        return Condition(words, pooled)

    def word_positions(self, prompt: str, words: Sequence[str]) -> list[int]:
        """Those of both CLIPs, which stand in the same places, and behind them T5's."""
        (text,) = self.check_prompts([prompt])
        pipeline = self.pipeline
        length = pipeline.tokenizer_max_length
        found = word_tokens(pipeline.tokenizer, text, words, length)
        if pipeline.text_encoder_3 is not None:
            found += [length + place for place in word_tokens(pipeline.tokenizer_3, text, words, MAX_WORDS)]
        return found

    def answer(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return self.transformer(
            hidden_states=noisy.to(dtype_of(self.transformer)),
            timestep=times.expand(len(noisy)).to(noisy.device),
            encoder_hidden_states=condition.embeds,
            pooled_projections=condition.pooled,
            return_dict=False,
        )[0]
