"""Stable Diffusion 1.x and 2.x: a UNet with cross-attention, one CLIP text encoder, an autoencoder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from types import ModuleType
from typing import Any

import torch
from diffusers import DDPMScheduler, SchedulerMixin, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from PIL import Image
from torch import Tensor, nn

from spectral_fusion.adapter.masks import Masks
from spectral_fusion.adapter.placed import Kind, Placement
from spectral_fusion.adapter.regional import RegionalAttention, replaced_attention
from spectral_fusion.adapter.watched import AttentionWatch, WatchedAttention
from spectral_fusion.base.bundled import known_by
from spectral_fusion.base.condition import Condition, Posterior
from spectral_fusion.base.control import Control, check_fits
from spectral_fusion.base.diffusion import min_snr_weights, noise_scheduler, prediction_target
from spectral_fusion.base.encoding import chunk_counts, encode_plain, encode_weighted
from spectral_fusion.base.interface import Base
from spectral_fusion.base.layers import dtype_of
from spectral_fusion.base.offload import work_device
from spectral_fusion.base.precision import check_pixels, in_float32
from spectral_fusion.base.prompt import weigh_parts
from spectral_fusion.base.regions import Box
from spectral_fusion.base.samplers import make_sampler
from spectral_fusion.base.texts import TextPart
from spectral_fusion.errors import InputError

WHOLE = re.compile(r"(^|\.)(time_emb_proj|time_embedding|add_embedding|class_embedding)(\.|$)")  # no cells, no words
WRITTEN_OUT = 1024  # tokens of an image up to which a training may hold each one's attention to all others


class StableDiffusion(Base):
    """Stable Diffusion 1.x, 2.x, and the bundled bases, which have their classes.

    Raises:
        InputError: the pipeline is of another family.
    """

    family = "sd"
    pipeline_class = "StableDiffusionPipeline"
    pipeline: StableDiffusionPipeline

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        if type(pipeline).__name__ != self.pipeline_class:
            raise InputError(
                f"a {type(pipeline).__name__} is not of the family {self.family}; give a {self.pipeline_class}"
            )
        super().__init__(pipeline)
        own = self.family == "sd" and self.unet.device.type != "meta"
        self.bundled = known_by(self.unet.config.sample_size, lambda: self.fingerprint) if own else None
        """Which bundled base these weights are, from wherever they were loaded; deltas do not change that."""

    @property
    def unet(self) -> nn.Module:
        return self.pipeline.unet

    @property
    def text_encoder(self) -> nn.Module:
        return self.pipeline.text_encoder

    @property
    def tokenizer(self) -> Any:
        return self.pipeline.tokenizer

    @property
    def vae(self) -> nn.Module:
        return self.pipeline.vae

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text_encoder": self.text_encoder}

    @property
    def texts(self) -> dict[str, TextPart]:
        return {"text_encoder": TextPart(self.tokenizer, self.text_encoder)}

    @property
    def frozen(self) -> list[nn.Module]:
        return [self.vae]

    @property
    def size(self) -> int:
        return self.unet.config.sample_size * self.multiple_of_latents

    @property
    def multiple_of_latents(self) -> int:
        """Pixels a latent is wide."""
        return self.pipeline.vae_scale_factor

    @property
    def multiple(self) -> int:
        return 8

    @property
    def training_multiple(self) -> int:
        halvings = len(self.unet.config.block_out_channels) - 1
        return self.multiple_of_latents * 2**halvings

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        scale = self.multiple_of_latents
        return self.unet.config.in_channels, height // scale, width // scale

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Posterior:
        with in_float32(self.vae):  # what is learned should not carry an encoder's rounding
            latents = self.vae.encode(pixels.to(work_device(self.vae), self.vae.dtype)).latent_dist
        return Posterior(latents.mean.float().cpu(), latents.std.float().cpu(), self.vae.config.scaling_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        latents = latents.to(work_device(self.vae), self.vae.dtype) / self.vae.config.scaling_factor
        pixels = self.vae.decode(latents).sample
        check_pixels(pixels)
        return self.pipeline.image_processor.postprocess(pixels)

    def condition(self, prompts: Sequence[str], *, weighted: bool = False) -> Condition:
        if weighted:
            prompts = self.check_prompts(prompts)
        encode = encode_weighted if weighted else encode_plain
        return Condition(encode(self.texts["text_encoder"], prompts))

    def prompt_chunks(self, prompts: Sequence[str]) -> list[int]:
        return chunk_counts(self.texts["text_encoder"], prompts)

    @cached_property
    def noise_schedule(self) -> DDPMScheduler:
        """The forward process. Raises InputError where the base predicts neither noise nor velocity."""
        return noise_scheduler(self.pipeline.scheduler)

    def draw_time(self, source: torch.Generator) -> int:
        return int(torch.randint(self.noise_schedule.config.num_train_timesteps, (), generator=source))

    def even_times(self, count: int) -> list[int]:
        return [int((k + 0.5) / count * self.noise_schedule.config.num_train_timesteps) for k in range(count)]

    def problem(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        schedule = self.noise_schedule
        return schedule.add_noise(latents, noise, times), prediction_target(schedule, latents, noise, times)

    def loss_weights(self, times: Tensor, min_snr_gamma: float) -> Tensor:
        return min_snr_weights(self.noise_schedule, times, min_snr_gamma)

    @property
    def min_snr_gamma(self) -> float:
        return 5.0 if self.noise_schedule.config.prediction_type == "epsilon" else 0.0

    def predict(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        noisy = noisy.to(dtype_of(self.unet))
        return self.unet(noisy, times, condition.embeds, **self._added(noisy, condition), return_dict=False)[0]

    def predict_controlled(self, noisy: Tensor, times: Tensor, condition: Condition, control: Control) -> Tensor:
        noisy = noisy.to(dtype_of(self.unet))
        added = self._added(noisy, condition)
        added |= control.residuals(noisy, times, condition.embeds, **added)
        return self.unet(noisy, times, condition.embeds, **added, return_dict=False)[0]

    def _added(self, noisy: Tensor, condition: Condition) -> dict[str, Any]:
        """What the UNet is told beside the text, by the names of its arguments."""
        return {}

    def check_control(self, config: Mapping[str, Any], name: str) -> None:
        if config:
            check_fits(config, name, self.unet.config, self.multiple_of_latents)

    @contextmanager
    def gradient_checkpointing(self) -> Iterator[None]:
        encoders = [text.encoder for text in self.texts.values()]
        self.unet.enable_gradient_checkpointing()
        for encoder in encoders:
            encoder.activation_checkpointing_enable({"use_reentrant": False})
            encoder.train()  # transformers recomputes in this mode only; CLIP has no dropout
        try:
            yield
        finally:
            self.unet.disable_gradient_checkpointing()
            for encoder in encoders:
                encoder.activation_checkpointing_disable()

    @contextmanager
    def quick_attention(self, precision: str, shape: tuple[int, int]) -> Iterator[None]:
        # On a CPU PyTorch's fused attention in bfloat16 takes three to nine times as long backward as the products
        # written out, which hold all of an image's tokens against one another: of small images only.
        if self.device.type != "cpu" or precision != "bf16" or math.prod(shape) > WRITTEN_OUT:
            yield
            return
        encoders = {text.encoder: text.encoder.config._attn_implementation for text in self.texts.values()}
        for encoder in encoders:
            encoder.set_attn_implementation("eager")
        try:
            with replaced_attention(self.unet, _written_out, layers=""):
                yield
        finally:
            for encoder, before in encoders.items():
                encoder.set_attn_implementation(before)

    def scheduler(self, sampler: str, shape: tuple[int, int], steps: int) -> SchedulerMixin:
        return make_sampler(self.pipeline.scheduler.config, sampler)

    def layer_kind(self, layer: str) -> Kind:
        part, _, path = layer.partition(".")
        if part != "unet" or path.endswith((".attn2.to_k", ".attn2.to_v")):
            return "text"
        return "whole" if WHOLE.search(path) else "image"

    @contextmanager
    def read_places(self, texts: Sequence[Condition], placement: Placement, *, half: bool = False) -> Iterator[None]:
        embeds = [text.embeds for text in texts]
        with replaced_attention(self.unet, lambda _: RegionalAttention(embeds, placement, half=half)):
            yield

    def word_positions(self, prompt: str, words: Sequence[str]) -> list[int]:
        text = self.texts["text_encoder"]
        spelt = partial(text.tokenizer, add_special_tokens=False)  # a word that is no trigger, such as a class
        ids = {number for word in words for number in text.token_ids(word) or spelt(word).input_ids}
        plain = ["".join(piece for piece, _ in part) for part in weigh_parts(prompt)]
        run = [number for part in plain for chunk in text.chunks(part) for number in chunk]
        return [position for position, number in enumerate(run) if number in ids]

    @contextmanager
    def watch_words(
        self, tokens: Sequence[Sequence[int]], size: tuple[int, int]
    ) -> Iterator[Callable[[], Tensor | None]]:
        watch = AttentionWatch(tokens, Masks([], *size).size)
        with replaced_attention(self.unet, lambda processor: WatchedAttention(processor, watch)):
            yield watch.mean

    def scorers(self) -> ModuleType | None:
        return self.bundled.scorers() if self.bundled else None

    def places(self, count: int) -> list[Box]:
        return self.bundled.places(count) if self.bundled else super().places(count)


def _written_out(processor: Any) -> Any:
    """Attention as products, in place of PyTorch's fused one; any other processor as it is."""
    return AttnProcessor() if type(processor) is AttnProcessor2_0 else processor
