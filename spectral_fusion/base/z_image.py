"""Z-Image: one stream of picture and text tokens, told by a language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ZImagePipeline
from torch import Tensor

from spectral_fusion.base.condition import Condition
from spectral_fusion.base.flow import FlowTransformer
from spectral_fusion.base.layers import dtype_of

MAX_WORDS = 512


class ZImage(FlowTransformer):
    """Z-Image, base and turbo. It reads prompts of different lengths, so that a condition carries a mask."""

    family = "z-image"
    pipeline_class = "ZImagePipeline"
    pipeline: ZImagePipeline

    @property
    def size(self) -> int:
        return self.vae.config.sample_size

    @torch.no_grad()
    def condition(self, prompts: Sequence[str], *, weighted: bool = False) -> Condition:
        if weighted:
            prompts = self.check_prompts(prompts)
        found, _ = self.pipeline.encode_prompt(list(prompts), device=self.device, do_classifier_free_guidance=False)
        embeds = found[0].new_zeros(len(found), MAX_WORDS, found[0].shape[1])
        mask = torch.zeros(len(found), MAX_WORDS, dtype=torch.bool, device=embeds.device)
        for place, words in enumerate(found):
            embeds[place, : len(words)] = words
            mask[place, : len(words)] = True
        return Condition(embeds, extra={"mask": mask})

    def answer(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The model counts time from noise to picture, and answers `x - n`."""
        pictures = list(noisy.to(dtype_of(self.transformer)).unsqueeze(2).unbind(0))
        told = list(condition.embeds)
        if "mask" in condition.extra:
            told = [embeds[mask] for embeds, mask in zip(told, condition.extra["mask"], strict=True)]
        shares = 1 - times.expand(len(noisy)).to(noisy) / 1000
        answers = self.transformer(pictures, shares, told, return_dict=False)[0]
        return -torch.stack(list(answers)).squeeze(2)
