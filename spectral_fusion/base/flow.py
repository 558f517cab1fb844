"""What transformers trained by flow matching have in common: times, target, samplers, frozen text encoders.

Noisy latents are `(1 - s) x + s n` for a share s of noise, and the model answers `n - x` (rectified flow, Liu et al.,
2023; Esser et al., 2024). A time here is 1000 s, as diffusers' schedulers count.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from PIL import Image
from torch import Tensor, nn

from spectral_fusion.adapter.joint import processor_for, replaced_processors
from spectral_fusion.adapter.placed import Kind, Placement
from spectral_fusion.adapter.watched import AttentionWatch, WatchedStreams
from spectral_fusion.base.condition import Condition, Posterior
from spectral_fusion.base.interface import Base, Embeddings
from spectral_fusion.base.joint import RegionTexts, layer_kind, word_tokens
from spectral_fusion.base.offload import work_device
from spectral_fusion.errors import InputError
from spectral_fusion.names import check_trigger, same

TIMES = 1000
USUAL_STEPS = 25  # of sampling, for the families whose shift depends on it
# Samplers that integrate a flow; those of the other families are for noise schedules.
SOLVERS = {
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "UniPC": ("UniPCMultistepScheduler", {}),
}
FLOW_SAMPLERS = ("Euler", "Heun", *SOLVERS)
# After SD3's and FLUX's LoRA scripts in diffusers: attention of pictures and text, rate 1e-4, no noise offset.
JOINT_ATTENTION = (
    *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("to_qkv_mlp_proj", "to_out"),  # of FLUX.2's single blocks
)
FULL_SIZE: dict[str, Any] = {
    "target": JOINT_ATTENTION,
    "vectors": 0,
    "batch_size": 1,
    "learning_rate_embedding": 0.0,
    "learning_rate_text_encoder": 0.0,
    "learning_rate_unet": 1e-4,
    "noise_offset": 0.0,
    "min_snr_gamma": 0.0,
}


class FlowTransformer(Base):
    """A transformer with joint attention whose text encoders stay frozen: a trigger is a rare word of the prompt.

    Raises:
        InputError: the pipeline is of another family.
    """

    pipeline_class: str
    joint_blocks: tuple[str, ...] = ()
    """How the paths of layers begin that see picture and text in a row."""
    text_first = True
    """Whether texts come before the picture in such a row."""
    weighs_words = False

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        if type(pipeline).__name__ != self.pipeline_class:
            raise InputError(
                f"a {type(pipeline).__name__} is not of the family {self.family}; give a {self.pipeline_class}"
            )
        super().__init__(pipeline)
        self._triggers: list[str] = []
        self._regions: RegionTexts | None = None

    @property
    def transformer(self) -> nn.Module:
        return self.pipeline.transformer

    @property
    def vae(self) -> nn.Module:
        return self.pipeline.vae

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"transformer": self.transformer}

    @property
    def frozen(self) -> list[nn.Module]:
        encoders = (getattr(self.pipeline, f"text_encoder{ending}", None) for ending in ("", "_2", "_3"))
        return [self.vae, *(encoder for encoder in encoders if encoder is not None)]

    @property
    @abstractmethod
    def reader(self) -> tuple[Any, int]:
        """The tokenizer of the text encoder that reads the most, and how many tokens that reads."""

    def told(self, text: str) -> str:
        """What that tokenizer is given of a text."""
        return text

    def word_positions(self, prompt: str, words: Sequence[str]) -> list[int]:
        (text,) = self.check_prompts([prompt])
        tokenizer, most = self.reader
        return word_tokens(tokenizer, self.told(text), words, most)

    def unread(self, text: str) -> int:
        tokenizer, most = self.reader
        return max(0, len(tokenizer(self.told(text), truncation=False, verbose=False).input_ids) - most)

    def triggers(self) -> list[str]:
        return sorted(self._triggers)

    def check_words(self, trigger: str, embeddings: Embeddings) -> None:
        super().check_words(trigger, embeddings)
        if any(same(check_trigger(trigger), known) for known in self._triggers):
            raise InputError(f"trigger {trigger} is on this base already; choose another trigger")

    def add_words(self, triggers: Mapping[str, Embeddings]) -> None:
        super().add_words(triggers)
        self._triggers += triggers

    def remove_words(self, triggers: Sequence[str]) -> None:
        for trigger in triggers:
            if trigger not in self._triggers:
                raise InputError(f"trigger {trigger} is not in this base; nothing to remove")
        self._triggers = [trigger for trigger in self._triggers if trigger not in triggers]

    # Pictures and latents

    @property
    def size(self) -> int:
        return self.pipeline.default_sample_size * self.pipeline.vae_scale_factor

    @property
    def patch(self) -> int:
        """Latents that become one token of the transformer, along one side."""
        return 2

    @property
    def multiple(self) -> int:
        return self.pipeline.vae_scale_factor * self.patch

    @property
    def training_multiple(self) -> int:
        return self.multiple

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        scale = self.pipeline.vae_scale_factor
        return self.vae.config.latent_channels, height // scale, width // scale

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Posterior:
        found = self.vae.encode(pixels.to(work_device(self.vae), self.vae.dtype)).latent_dist
        config = self.vae.config
        return Posterior(found.mean.float().cpu(), found.std.float().cpu(), config.scaling_factor, config.shift_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        config = self.vae.config
        latents = latents.to(work_device(self.vae), self.vae.dtype) / config.scaling_factor + config.shift_factor
        return self.pipeline.image_processor.postprocess(self.vae.decode(latents).sample)

    # Learning

    def shift(self, shape: tuple[int, int], steps: int = USUAL_STEPS) -> float:
        """How far times are moved towards noise for latents of (height, width): `s' = k s / (1 + (k - 1) s)`."""
        config = self.pipeline.scheduler.config
        if not config.get("use_dynamic_shifting", False):
            return config.get("shift", 1.0)
        return shift_of_length((shape[0] // self.patch) * (shape[1] // self.patch), config)

    def draw_time(self, source: torch.Generator) -> float:
        """Logit-normal (Esser et al., 2024), shifted as in sampling at the base's own size."""
        share = torch.sigmoid(torch.randn((), generator=source)).item()
        return TIMES * shifted(share, self._own_shift())

    def even_times(self, count: int) -> list[float]:
        return [TIMES * shifted((k + 0.5) / count, self._own_shift()) for k in range(count)]

    def _own_shift(self) -> float:
        _, height, width = self.latent_shape(self.size, self.size)
        return self.shift((height, width))

    def problem(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        share = (times.to(latents) / TIMES)[:, None, None, None]
        return (1 - share) * latents + share * noise, noise - latents

    @abstractmethod
    def answer(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """`predict` for one row of texts, whatever stands in it."""

    def predict(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        if self._regions is None:
            return self.answer(noisy, times, condition)
        times = times.expand(len(noisy))
        plain = len(noisy) // 2 if self._regions.half else 0
        answers = [self.answer_in_places(noisy[plain:], times[plain:], condition[plain:], self._regions)]
        if plain:
            answers.insert(0, self.answer(noisy[:plain], times[:plain], condition[:plain]))
        return torch.cat(answers)

    def answer_in_places(self, noisy: Tensor, times: Tensor, condition: Condition, regions: RegionTexts) -> Tensor:
        """`predict` where each region's text rules in its place.

        times: (n,).
        """
        own, lengths = condition.embeds, [text.embeds.shape[1] for text in regions.texts]
        size = self.token_grid(noisy.shape[-2], noisy.shape[-1])
        sequence = regions.sequence(size, own.shape[1], lengths, text_first=self.text_first, device=own.device)
        with regions.placement.in_a_row(sequence):
            return self.answer(noisy, times, replace(condition, embeds=regions.joined(own, sequence)))

    def text_lengths(self, condition: Condition) -> list[int]:
        """Tokens of each text that stands in the row of a condition."""
        sequence = None if self._regions is None else self._regions.placement.sequence
        return sequence.lengths if sequence is not None else [condition.embeds.shape[1]]

    @contextmanager
    def gradient_checkpointing(self) -> Iterator[None]:
        self.transformer.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self.transformer.disable_gradient_checkpointing()

    def presets(self, mode: str, name: str) -> dict[str, Any]:
        chosen = super().presets(mode, name) | FULL_SIZE
        return chosen | ({"learning_rate_unet": 1e-2} if mode == "rotational" else {})

    # Places

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in tokens of latents of (height, width)."""
        return height // self.patch, width // self.patch

    def layer_kind(self, layer: str) -> Kind:
        return layer_kind(layer.partition(".")[2], self.joint_blocks)

    @contextmanager
    def read_places(self, texts: Sequence[Condition], placement: Placement, *, half: bool = False) -> Iterator[None]:
        def processor(name: str, attn: Any) -> Any:
            return processor_for(attn, layer_kind(f"{name}.to_q", self.joint_blocks), placement)

        with replaced_processors(self.transformer, processor):
            self._regions = RegionTexts(texts, placement, half=half)
            try:
                yield
            finally:
                self._regions = None

    @contextmanager
    def watch_words(
        self, tokens: Sequence[Sequence[int]], size: tuple[int, int]
    ) -> Iterator[Callable[[], Tensor | None]]:
        grid = self.token_grid(*size)
        watch = AttentionWatch(tokens, lambda _: grid)
        with replaced_processors(self.transformer, lambda name, attn: self.watched(name, attn, watch)):
            yield watch.mean

    def watched(self, name: str, attn: Any, watch: AttentionWatch) -> Any | None:
        """What takes notes of an attention of picture and text; None: nothing does, as of FLUX's last blocks."""
        has_text = getattr(attn, "add_q_proj", None) is not None
        return WatchedStreams(attn.processor, watch, text_first=self.text_first) if has_text else None

    # Drawing

    @property
    def plain_sampler(self) -> str:
        return "Euler"

    def scheduler(self, sampler: str, shape: tuple[int, int], steps: int = USUAL_STEPS) -> SchedulerMixin:
        """A new scheduler of that name; raises InputError where it does not integrate a flow."""
        by_lower = {known.lower(): known for known in FLOW_SAMPLERS}
        if sampler.lower() not in by_lower:
            near = get_close_matches(sampler.lower(), by_lower, n=1)
            advice = f"did you mean {by_lower[near[0]]!r}?" if near else f"choose one of: {', '.join(FLOW_SAMPLERS)}"
            raise InputError(f"sampler {sampler!r} is not for bases of the family {self.family}; {advice}")
        name, shift = by_lower[sampler.lower()], self.shift(shape, steps)
        if name in SOLVERS:
            kind, settings = SOLVERS[name]
            flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
            return getattr(diffusers, kind)(num_train_timesteps=TIMES, **flow, **settings)
        kind = f"FlowMatch{name}DiscreteScheduler"
        return getattr(diffusers, kind)(num_train_timesteps=TIMES, shift=shift)

    def set_steps(self, scheduler: SchedulerMixin, steps: int) -> None:
        """Set the timesteps of a scheduler as the pipelines since FLUX.1 do: from pure noise in equal shares."""
        if type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler":
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=self.device)
        else:
            scheduler.set_timesteps(steps, device=self.device)


def as_chat(tokenizer: Any, text: str, *, thinking: bool) -> str:
    """A text as what a user says to a language model, after which it is to answer."""
    said = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)


def shifted(share: float, shift: float) -> float:
    """A share of noise moved towards 1 by the factor `shift` of its odds."""
    return shift * share / (1 + (shift - 1) * share)


def shift_of_length(tokens: int, config: Mapping[str, Any]) -> float:
    """The shift that a scheduler with dynamic shifting takes for so many picture tokens: exp of a linear function."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return math.exp(least + (most - least) * (tokens - low) / (high - low))
