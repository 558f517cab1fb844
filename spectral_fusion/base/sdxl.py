"""Stable Diffusion XL: a UNet that reads two text encoders side by side, and is told sizes and crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn

from spectral_fusion.base.condition import Condition, Frame
from spectral_fusion.base.encoding import encode_inner, encode_inner_weighted
from spectral_fusion.base.presets import LARGEST_MINIATURE
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.base.texts import TextPart
from spectral_fusion.errors import InputError

TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
EOS_AS_HIGHEST_ID = 2  # transformers' mark of a configuration whose pooled text is that of the highest token id


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL and its descendants.

    Raises:
        InputError: the pipeline is of another family, a refiner, or for inpainting.
    """

    family = "sdxl"
    pipeline_class = "StableDiffusionXLPipeline"
    pipeline: StableDiffusionXLPipeline

    def __init__(self, pipeline: StableDiffusionXLPipeline) -> None:
        super().__init__(pipeline)
        if pipeline.text_encoder is None or pipeline.tokenizer is None:
            raise InputError(f"base {self.name} is a refiner, which has one text encoder; give the base model")
        if self.unet.config.in_channels != 4:
            raise InputError(
                f"base {self.name} reads {self.unet.config.in_channels} channels, as models for inpainting and editing "
                "do; give a text-to-image model"
            )
        for text in self.texts.values():
            _pool_at_end_token(text)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, **{name: getattr(self.pipeline, name) for name in TOKENIZERS}}

    @property
    def texts(self) -> dict[str, TextPart]:
        return {
            name: TextPart(getattr(self.pipeline, tokenizer), getattr(self.pipeline, name))
            for name, tokenizer in TOKENIZERS.items()
        }

    def condition(self, prompts: Sequence[str], *, weighted: bool = False) -> Condition:
        """The words of both encoders, each from its last layer but one, side by side; pooled text of the second."""
        if weighted:
            prompts = self.check_prompts(prompts)
        encode = encode_inner_weighted if weighted else encode_inner
        encoded = [encode(text, prompts) for text in self.texts.values()]
        return Condition(torch.cat([words for words, _ in encoded], dim=-1), encoded[-1][1])

    def framed(self, condition: Condition, frames: Sequence[Frame | None], size: tuple[int, int]) -> Condition:
        height, width = (side * self.multiple_of_latents for side in size)
        whole = Frame((height, width), (0, 0), (height, width))
        times = torch.tensor([(frame or whole).numbers for frame in frames], device=condition.embeds.device)
        return replace(condition, extra={"time_ids": times})

    def _added(self, noisy: Tensor, condition: Condition) -> dict[str, Any]:
        if "time_ids" not in condition.extra:
            condition = self.framed(condition, [None] * len(condition), (noisy.shape[-2], noisy.shape[-1]))
        return {"added_cond_kwargs": {"text_embeds": condition.pooled, "time_ids": condition.extra["time_ids"]}}

    def presets(self, mode: str, name: str) -> dict[str, Any]:
        """As for 1.x, whose rates kohya's guide to LoRAs of XL gives too (1e-4, text encoders 1e-5); one picture a step
        at 1024 px, and no noise offset: XL was trained with one (Podell et al., 2023), and v-prediction needs none."""
        chosen = super().presets(mode, name)
        return chosen if self.size <= LARGEST_MINIATURE else chosen | {"batch_size": 1, "noise_offset": 0.0}


def _pool_at_end_token(text: TextPart) -> None:
    """Published configurations have the pooled text read at the highest token id, which a new word's would be."""
    model = getattr(text.encoder, "text_model", text.encoder)
    for config in {id(c): c for c in (text.encoder.config, model.config)}.values():
        if config.eos_token_id == EOS_AS_HIGHEST_ID:
            config.eos_token_id = text.tokenizer.eos_token_id
    if model.eos_token_id == EOS_AS_HIGHEST_ID:
        model.eos_token_id = text.tokenizer.eos_token_id
