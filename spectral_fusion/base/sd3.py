"""Stable Diffusion 3 and 3.5: a joint-attention transformer told by two CLIPs and, where it is loaded, T5."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from diffusers import SchedulerMixin, StableDiffusion3Pipeline
from torch import Tensor

from spectral_fusion.base.bundled import known_by
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.flow import FlowTransformer
from spectral_fusion.base.joint import word_tokens
from spectral_fusion.base.layers import dtype_of
from spectral_fusion.base.presets import MINIATURE_JOINT
from spectral_fusion.base.regions import Box
from spectral_fusion.base.vocabulary import EVERYDAY, Vocabulary

MAX_WORDS = 256  # of T5, as the pipeline has it by default


class StableDiffusion3(FlowTransformer):
    """Stable Diffusion 3 and 3.5. Brackets in prompts are text: the words of T5 have no weights."""

    family = "sd3"
    pipeline_class = "StableDiffusion3Pipeline"
    text_first = False
    pipeline: StableDiffusion3Pipeline

    def __init__(self, pipeline: StableDiffusion3Pipeline) -> None:
        super().__init__(pipeline)
        side = self.transformer.config.sample_size
        self.bundled = known_by(side, lambda: self.fingerprint) if self.transformer.device.type != "meta" else None
        """Which bundled base these weights are, from wherever they were loaded; deltas do not change that."""
        self.t5_tokens = self.bundled.t5_tokens if self.bundled else MAX_WORDS

    @property
    def size(self) -> int:
        return self.transformer.config.sample_size * self.pipeline.vae_scale_factor

    @property
    def patch(self) -> int:
        return self.transformer.config.patch_size

    @property
    def reader(self) -> tuple[Any, int]:
        if self.pipeline.text_encoder_3 is None or self.bundled:
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
            list(prompts),
            None,
            [""] * len(prompts) if self.bundled else None,  # its T5 says nothing, and would warn of what it cut
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.t5_tokens,
        )
        return Condition(words, pooled)

    def word_positions(self, prompt: str, words: Sequence[str]) -> list[int]:
        """Those of both CLIPs, which stand in the same places, and behind them T5's."""
        (text,) = self.check_prompts([prompt])
        pipeline = self.pipeline
        length = pipeline.tokenizer_max_length
        found = word_tokens(pipeline.tokenizer, text, words, length)
        if pipeline.text_encoder_3 is not None and not self.bundled:
            found += [length + place for place in word_tokens(pipeline.tokenizer_3, text, words, MAX_WORDS)]
        return found

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Everyday words that its first tokenizer has whole."""
        return EVERYDAY.known_to(lambda word: len(self.pipeline.tokenizer.tokenize(word)) == 1)

    def answer(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return self.transformer(
            hidden_states=noisy.to(dtype_of(self.transformer)),
            timestep=times.expand(len(noisy)).to(noisy.device),
            encoder_hidden_states=condition.embeds,
            pooled_projections=condition.pooled,
            return_dict=False,
        )[0]

    def presets(self, mode: str, name: str) -> dict[str, Any]:
        chosen = super().presets(mode, name)
        return chosen | MINIATURE_JOINT if self.bundled and mode != "rotational" else chosen

    # Judging

    def scorers(self) -> ModuleType | None:
        return self.bundled.scorers() if self.bundled else None

    def places(self, count: int) -> list[Box]:
        return self.bundled.places(count) if self.bundled else super().places(count)
