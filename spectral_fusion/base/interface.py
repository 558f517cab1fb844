"""What a base can do, whatever its family. The rest of the project knows bases through this class only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from PIL import Image
from torch import Tensor, nn

from spectral_fusion.adapter.masks import Masks
from spectral_fusion.adapter.placed import Kind, Placement
from spectral_fusion.base.condition import Condition, DenoisingStep, Frame, Generators, Posterior, Start
from spectral_fusion.base.control import Control
from spectral_fusion.base.denoising import denoising_steps
from spectral_fusion.base.layers import base_layers, fingerprint_of
from spectral_fusion.base.offload import LayerVisits, by_blocks, one_at_a_time, work_device
from spectral_fusion.base.presets import preset
from spectral_fusion.base.prompt import check_triggers
from spectral_fusion.base.quiet import quietly
from spectral_fusion.base.regions import Box, Region, side_by_side
from spectral_fusion.base.samplers import steps_that_fit
from spectral_fusion.base.texts import TextPart
from spectral_fusion.base.vocabulary import EVERYDAY, Vocabulary
from spectral_fusion.concept.fingerprint import weight_fingerprint
from spectral_fusion.errors import InputError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Quantised:
    """What a base was before its denoiser was quantised.

    Attributes:
        scheme: "int8", "fp8" or "nf4".
        fingerprint: of the base.
        layers: the fingerprint of each quantised layer's weight, `<part>.<path>`.
        errors: how far each of these weights moved, over its own norm.
    """

    scheme: str
    fingerprint: str
    layers: Mapping[str, str]
    errors: Mapping[str, float]


Embeddings = Mapping[str, Tensor]
"""The vectors of one trigger, (n, width), by the name of the text part that they belong to."""


class Base(ABC):
    """A loaded base.

    A family is a subclass in a file of its own; `load.open_base` chooses it.

    Attributes:
        family: short name of the family, as concept files carry it.
        pipeline: the diffusers pipeline whose models these are.
        fused: names of the concepts that are fused into the weights now.
        quantised: how the denoiser's weights were quantised, and what they were before; None: they are plain.
    """

    family: str

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.pipeline = pipeline
        self.fused: tuple[str, ...] = ()
        self.quantised: Quantised | None = None
        self._blocks_on: torch.device | None = None
        self._visits: LayerVisits | None = None

    # What it consists of

    @property
    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The models that concepts adapt, by name, the denoiser first. A layer is called `<part>.<module path>`."""

    @property
    def texts(self) -> dict[str, TextPart]:
        """The text parts that can learn new words, by the name that they have in `parts`; empty where none can."""
        return {}

    @property
    def frozen(self) -> list[nn.Module]:
        """Models that no concept adapts, such as the autoencoder."""
        return []

    @property
    def denoiser(self) -> nn.Module:
        """The first part: a UNet or a transformer."""
        return next(iter(self.parts.values()))

    @property
    def name(self) -> str:
        """What the base was loaded from, as the user called it."""
        return self.pipeline.name_or_path or ""

    @property
    def stock_class(self) -> str:
        """The diffusers class that loads what `save` writes."""
        return type(self.pipeline).__name__

    @property
    def device(self) -> torch.device:
        """Where the denoiser works; an offloaded one lies elsewhere in between."""
        return self._blocks_on or work_device(self.denoiser)

    def to(self, device: str | torch.device) -> None:
        """Move all models to a device."""
        self.pipeline.to(device)

    def place(self, device: str | torch.device, parts: Sequence[str], *, layers: bool = False) -> None:
        """Move some parts to a device, and everything else to the CPU, where the autoencoder works too.

        Args:
            layers: the denoiser's frozen weights stay on the CPU, and a layer's come to the device while it works.
        """
        for name, model in self.parts.items():
            visited = layers and name in parts and model is self.denoiser
            model.to(device if name in parts and not visited else "cpu")
        for model in self.frozen:
            model.to("cpu")
        if layers:
            self._blocks_on = torch.device(device)
            self._visits = LayerVisits(self.denoiser, self._blocks_on)

    def settle(self) -> None:
        """Bring adapters that were put on to where the denoiser works, where its layers come and go."""
        if self._visits:
            self._visits.settle()

    def offload(self, device: str | torch.device, *, blocks: bool = False) -> None:
        """Draw on a device that holds one model at a time; pictures are decoded one by one, large ones in tiles.

        The models lie on the CPU in between.

        Args:
            blocks: of the denoiser hold one block at a time, see `offload.by_blocks`.
        """
        device = torch.device(device)
        for switch in ("enable_slicing", "enable_tiling"):
            for model in self.frozen:
                if hasattr(model, switch):
                    getattr(model, switch)()
        others = [model for model in (*self.parts.values(), *self.frozen) if model is not self.denoiser]
        if blocks:
            by_blocks(self.denoiser, others, device)
            self._blocks_on = device
        elif device.type != "cpu":
            one_at_a_time([self.denoiser, *others], device)

    def cast(self, dtype: torch.dtype) -> None:
        """Turn all weights into another type, but those of an autoencoder that says it needs float32."""
        with quietly():
            for model in [*self.parts.values(), *self.frozen]:
                if not getattr(model.config, "force_upcast", False):
                    model.to(dtype)

    @property
    def fingerprint(self) -> str:
        """Tells this base from others, in whatever precision: see `concept.fingerprint`."""
        return self.quantised.fingerprint if self.quantised else fingerprint_of(self.parts.values())

    def layer_fingerprint(self, name: str, layer: nn.Module) -> str:
        """The fingerprint of a layer's weight, of a quantised one as it was before."""
        if self.quantised and name in self.quantised.layers:
            return self.quantised.layers[name]
        return weight_fingerprint(layer.weight)

    def layers(self) -> dict[str, nn.Module]:
        """The linear and convolution layers that concepts can adapt, by name."""
        return {f"{part}.{path}": layer for part, model in self.parts.items() for path, layer in base_layers(model)}

    # Pictures and latents

    @property
    @abstractmethod
    def size(self) -> int:
        """Width of the pictures that the base was made for, in pixels."""

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Sides of generated pictures must divide by this, in pixels."""

    @property
    @abstractmethod
    def training_multiple(self) -> int:
        """Sides of training pictures must divide by this, in pixels, so that the denoiser can halve them evenly."""

    @abstractmethod
    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a picture of so many pixels."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Posterior:
        """pixels: (n, 3, height, width) in [-1, 1]. The posterior is in float32, on the CPU."""

    @abstractmethod
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """latents: (n, channels, height, width), as the denoiser sees them."""

    # Text

    @abstractmethod
    def condition(self, prompts: Sequence[str], *, weighted: bool = False) -> Condition:
        """What the denoiser is told by these prompts, of any length.

        Args:
            weighted: whether `(word:1.3)` and `[word]` weigh a word, as in prompts that people write; else brackets
                are text, as in captions. No gradient passes where weights are read.
        """

    def framed(self, condition: Condition, frames: Sequence[Frame | None], size: tuple[int, int]) -> Condition:
        """A condition that also tells which part of its picture each one is, for the families that are told so.

        Args:
            frames: None for a whole picture.
            size: (height, width) of the latents.
        """
        return condition

    def prompt_chunks(self, prompts: Sequence[str]) -> list[int]:
        """How many runs of the encoder each prompt takes: conditions of one batch have the same number."""
        return [1] * len(prompts)

    def token_count(self, prompt: str) -> int:
        """Tokens of a prompt, each trigger counted with all its vectors; the most that any text part reads."""
        return max((len(text.tokenizer.tokenize(text.expand(prompt))) for text in self.texts.values()), default=0)

    weighs_words: ClassVar[bool] = True
    """Whether `(word:1.3)` weighs a word in `condition`; else brackets are text always."""

    @property
    def takes_negative(self) -> bool:
        """Whether a negative prompt has an effect."""
        return True

    def unread(self, text: str) -> int:
        """How many tokens at the end of a text are read by no text encoder: 0 where it may be of any length."""
        return 0

    def triggers(self) -> list[str]:
        """Triggers that the base knows now."""
        return next((text.triggers() for text in self.texts.values()), [])

    def check_prompts(self, prompts: Sequence[str]) -> list[str]:
        """The prompts, triggers as their concepts write them; raises InputError for one that is not on this base."""
        known = self.triggers()
        return [check_triggers(prompt, known) for prompt in prompts]

    def check_words(self, trigger: str, embeddings: Embeddings) -> None:
        """Raises InputError where `add_words` would; changes nothing."""
        if embeddings.keys() != self.texts.keys():
            raise InputError(
                f"embeddings of {trigger} are for {', '.join(embeddings) or 'no text encoder'}; this base has "
                f"{', '.join(self.texts) or 'none that learns words'}. Use a concept trained on this kind of base"
            )
        for part, rows in embeddings.items():
            self.texts[part].check(trigger, rows)

    def add_words(self, triggers: Mapping[str, Embeddings]) -> None:
        """Add triggers to every text part; `remove_words` is the inverse. Nothing changes where one is refused.

        Raises:
            InputError: a trigger is malformed or known, or its vectors do not fit.
        """
        for trigger, embeddings in triggers.items():
            self.check_words(trigger, embeddings)
        for name, text in self.texts.items():
            text.add({trigger: embeddings[name] for trigger, embeddings in triggers.items()})

    def remove_words(self, triggers: Sequence[str]) -> None:
        """The inverse of `add_words`. Raises InputError where the base does not have one of them."""
        for text in self.texts.values():
            text.remove(triggers)

    # Learning

    @abstractmethod
    def draw_time(self, source: torch.Generator) -> float:
        """A random timestep to train at."""

    @abstractmethod
    def even_times(self, count: int) -> Sequence[float]:
        """So many timesteps, evenly spread."""

    @abstractmethod
    def problem(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy latents, and what the denoiser should answer to them.

        latents, noise: (n, channels, height, width); times: (n,) -> two tensors of the latents' shape.
        """

    def loss_weights(self, times: Tensor, min_snr_gamma: float) -> Tensor:
        """(n,): weights of the loss at these timesteps; ones for gamma 0, and where a family knows no such weights."""
        return torch.ones(len(times), device=times.device)

    @abstractmethod
    def predict(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The denoiser's answer to (n, channels, height, width), of the same shape. Gradients pass."""

    def gradient_checkpointing(self) -> AbstractContextManager[None]:
        """Within the `with` block, activations are computed again instead of kept."""
        return nullcontext()

    def quick_attention(self, precision: str, shape: tuple[int, int]) -> AbstractContextManager[None]:
        """Within the `with` block attention is computed in the way whose backward pass is the fastest here.

        Args:
            precision: that is computed in.
            shape: height and width of the latents.
        """
        return nullcontext()

    @property
    def min_snr_gamma(self) -> float:
        """The default of that setting; 0 for none."""
        return 0.0

    def autocast(self, precision: str) -> torch.autocast:
        """The precision that is computed in, on the base's device: fp32, fp16 or bf16."""
        dtype = DTYPES[precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def presets(self, mode: str, name: str) -> dict[str, Any]:
        """Default training settings of this base, for a mode of adapter and the name of a preset."""
        chosen = preset(self.size, mode, name)  # type: ignore[arg-type]  # checked by TrainConfig
        return chosen | {"min_snr_gamma": self.min_snr_gamma}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Everyday words that this base knows as whole tokens."""
        text = next(iter(self.texts.values()), None)
        return EVERYDAY if text is None else EVERYDAY.known_to(text.is_one_token)

    # Drawing

    @property
    def plain_sampler(self) -> str:
        """The sampler that adds no noise and takes one answer a step, for what the base is asked in training."""
        return "DDIM"

    @abstractmethod
    def scheduler(self, sampler: str, shape: tuple[int, int], steps: int) -> SchedulerMixin:
        """A new scheduler of that name for latents of a (height, width). Raises InputError where it is unknown."""

    def set_steps(self, scheduler: SchedulerMixin, steps: int) -> None:
        """Set the timesteps of a scheduler as the family's own pipeline does."""
        scheduler.set_timesteps(steps, device=self.device)

    def guided(
        self, condition: Condition, uncondition: Condition | None, scale: float
    ) -> tuple[Condition, Condition | None, float]:
        """The same three as classifier-free guidance is to have them; a denoiser may take its guidance otherwise."""
        return condition, uncondition, scale

    @torch.no_grad()
    def denoise(
        self,
        condition: Condition,
        noise: Tensor,
        *,
        sampler: str,
        steps: int,
        uncondition: Condition | None = None,
        guidance_scale: float = 1.0,
        generator: Generators = None,
        start: Start | None = None,
        turns: Sequence[int] | None = None,
        control: Control | None = None,
    ) -> Iterator[DenoisingStep]:
        """Denoise from pure noise or from a picture, step by step: the one loop of all that draws.

        Args:
            noise: (n, channels, height, width), standard normal.
            sampler: a name of `SAMPLERS`.
            uncondition: the negative prompt; None for no guidance.
            guidance_scale: of classifier-free guidance.
            generator: of the noise that some samplers add; a list has one for each picture.
            start: a picture to begin at, and what of it is to stay.
            turns: which row of `condition` counts in each step, evenly spread, for one picture. None: all rows, a
                picture each.
            control: a picture in the size of the new one that guides the denoising; see `check_control`.

        Raises:
            InputError: the sampler is unknown, or cannot take so many steps.
        """
        scheduler = self.scheduler(sampler, (noise.shape[-2], noise.shape[-1]), steps)
        with steps_that_fit(scheduler, sampler, steps):
            self.set_steps(scheduler, steps)
        condition, uncondition, guidance_scale = self.guided(condition, uncondition, guidance_scale)
        yield from denoising_steps(
            self.predict,
            scheduler,
            condition,
            noise.to(self.device),
            uncondition=uncondition,
            guidance_scale=guidance_scale,
            generator=generator,
            start=start,
            turns=turns,
            controlled=None if control is None else (self.predict_controlled, control),
        )

    def check_control(self, config: Mapping[str, Any], name: str) -> None:
        """Whether a ControlNet of that configuration fits; an empty one asks whether any does. Raises InputError."""
        raise InputError(f"bases of the family {self.family} take no ControlNet here; generate without {name}")

    def predict_controlled(self, noisy: Tensor, times: Tensor, condition: Condition, control: Control) -> Tensor:
        """`predict` with a control picture. Raises InputError where `check_control` does."""
        raise InputError(f"bases of the family {self.family} take no ControlNet; generate without {control.net.name}")

    def layer_kind(self, layer: str) -> Kind:
        """What a layer sees: cells of the picture, text, both, or neither. Raises InputError where it is not known."""
        raise InputError(f"concepts cannot be bound to places on a base of family {self.family}; fuse them instead")

    def read_places(
        self, texts: Sequence[Condition], placement: Placement, *, half: bool = False
    ) -> AbstractContextManager[None]:
        """Within the `with` block the cells of each place read its own text.

        Args:
            texts: of each place, row by row as the picture's own condition, the unconditional ones first.
            half: the first half of each batch reads the picture's own text everywhere, and `texts` are of the second.

        Raises:
            InputError: the attention of this family cannot be split.
        """
        raise InputError(
            f"the attention of bases of the family {self.family} is not split into regions here; "
            "name all subjects in one prompt"
        )

    def watch_words(
        self, tokens: Sequence[Sequence[int]], size: tuple[int, int]
    ) -> AbstractContextManager[Callable[[], Tensor | None]]:
        """Within the `with` block, what is yielded gives how strongly each cell attends to some of the text's tokens.

        Args:
            tokens: positions in the conditional text of each subject's words.
            size: (height, width) of the latents.

        Returns:
            (subjects, height, width) in the denoiser's own sizes, the mean over all that has passed; None for nothing.

        Raises:
            InputError: the attention of this family cannot be read.
        """
        raise InputError(f"places cannot be found on a base of family {self.family}; give boxes or masks")

    def word_positions(self, prompt: str, words: Sequence[str]) -> list[int]:
        """Where in the text that the denoiser reads the tokens of some triggers or words stand; empty where nowhere."""
        return []

    @contextmanager
    def regions(
        self, regions: Sequence[Region], condition: Condition, *, size: tuple[int, int], guided: bool
    ) -> Iterator[None]:
        """Within the `with` block each region's prompt rules in its place.

        Args:
            condition: of the regions' prompts.
            size: (height, width) of the latents.
            guided: the first half of each batch is unconditional and stays as it is.
        """
        if not regions:
            yield
            return
        texts = [condition[number : number + 1] for number in range(len(regions))]
        with self.read_places(texts, Placement([], Masks(regions, *size)), half=guided):
            yield

    def save(self, folder: str) -> None:
        """Write a folder that a stock diffusers pipeline loads. Raises InputError where the weights are quantised."""
        self.refuse_quantised("saved")
        self.pipeline.save_pretrained(folder)

    def refuse_quantised(self, what: str) -> None:
        """Raises InputError where the weights are quantised: there is no exact way back from those."""
        if self.quantised:
            raise InputError(
                f"this base is quantised to {self.quantised.scheme}, and cannot be {what}; open it without --quantize"
            )

    # Judging

    def scorers(self) -> ModuleType | None:
        """The base's own judge of pictures, where it has one; see `evaluate.scorers.Scorers`."""
        return None

    def places(self, count: int) -> list[Box]:
        """Where so many subjects stand when a prompt names them from left to right."""
        return side_by_side(count)


@contextmanager
def words(base: Base, triggers: Mapping[str, Embeddings]) -> Iterator[None]:
    """Within the `with` block the base knows these triggers; afterwards it is as before."""
    base.add_words(triggers)
    try:
        yield
    finally:
        base.remove_words(list(triggers))
