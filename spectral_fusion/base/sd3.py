"""Stable Diffusion 3 and 3.5: a joint-attention transformer told by two CLIPs and, where it is loaded, T5."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import SchedulerMixin, StableDiffusion3Pipeline
from torch import Tensor

from spectral_fusion.base.condition import Condition
from spectral_fusion.base.flow import FlowTransformer
from spectral_fusion.base.joint import word_tokens
from spectral_fusion.base.layers import dtype_of

T5_TOKENS = 256  # as SD 3's pipeline has them


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
            found += [length + place for place in word_tokens(pipeline.tokenizer_3, text, words, T5_TOKENS)]
        return found

    def answer(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return self.transformer(
            hidden_states=noisy.to(dtype_of(self.transformer)),
            timestep=times.expand(len(noisy)).to(noisy.device),
            encoder_hidden_states=condition.embeds,
            pooled_projections=condition.pooled,
            return_dict=False,
        )[0]
