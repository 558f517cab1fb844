"""Generating: prompts and regions to pictures, with previews on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor

from spectral_fusion import __version__
from spectral_fusion.base.condition import DenoisingStep
from spectral_fusion.base.interface import Base
from spectral_fusion.base.regions import Region
from spectral_fusion.base.samplers import SAMPLERS
from spectral_fusion.errors import InputError
from spectral_fusion.picture import Parameters
from spectral_fusion.settings import CHECKED, NonNegative, PositiveInt, checked

MAX_SEED = 2**64 - 1
PREVIEW_LATENTS = 32


@checked
@pydantic_dataclass(frozen=True, config=CHECKED)
class GenerateConfig:
    """What to generate.

    Raises:
        InputError: a value that cannot be used.
    """

    prompt: str
    negative_prompt: str = ""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Denoising steps."""
    guidance_scale: NonNegative = 5.0
    """Classifier-free guidance; 1 turns it, and the negative prompt, off."""
    sampler: str = "DPM++ 2M"
    """A name of `SAMPLERS`."""
    seed: int = 0
    """Of the first picture; the next ones count up."""
    num_images: PositiveInt = 1
    """Each picture is denoised on its own, so a seed gives the same picture in whatever company."""
    height: PositiveInt | None = None
    """In pixels, a multiple of 8; None: the base's own size."""
    width: PositiveInt | None = None
    regions: tuple[Region, ...] = ()
    """Prompts that rule in boxes; `prompt` rules outside."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """More settings to record in the picture, such as the concepts that are loaded."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED - self.num_images + 1:
            raise InputError(f"seed is {self.seed}; give a number from 0 to {MAX_SEED - self.num_images + 1}")

    @classmethod
    def from_parameters(cls, parameters: Parameters) -> GenerateConfig:
        """The settings that a picture carries; what it does not say, or says in words unknown here, is the default.

        Raises:
            InputError: a number that is none.
        """
        said = parameters.settings
        width, _, height = said.get("Size", "").partition("x")
        try:
            values: dict[str, Any] = {
                "num_inference_steps": int(said.get("Steps", cls.num_inference_steps)),
                "guidance_scale": float(said.get("CFG scale", cls.guidance_scale)),
                "seed": int(said.get("Seed", cls.seed)),
                "width": int(width) if width else None,
                "height": int(height) if height else None,
                "regions": tuple(Region(prompt, tuple(box)) for prompt, box in json.loads(said.get("Regions", "[]"))),
            }
        except (ValueError, TypeError) as error:
            raise InputError(f"the picture's settings cannot be read ({error}); enter them by hand") from error
        if said.get("Sampler") in SAMPLERS:
            values["sampler"] = said["Sampler"]
        return cls(parameters.prompt, parameters.negative_prompt, **values)


@dataclass(frozen=True)
class Picture:
    """A picture, the seed that gives it again, and how it was made."""

    image: Image.Image
    seed: int
    parameters: Parameters


@dataclass(frozen=True)
class Step:
    """A moment of the work: step `step` of `steps` of picture `picture` of `pictures`, all counted from 1."""

    step: int
    steps: int
    picture: int
    pictures: int
    latents: Tensor
    base: Base = field(repr=False)

    def preview(self) -> Image.Image:
        """The picture as far as it is: latents (1, channels, height, width), made small first, through the decoder."""
        scale = min(1.0, PREVIEW_LATENTS / max(self.latents.shape[2:]))
        size = [max(1, round(edge * scale)) for edge in self.latents.shape[2:]]
        return self.base.decode(torch.nn.functional.interpolate(self.latents.float(), size=size, mode="area"))[0]


OnStep = Callable[[Step], bool | None]


def generate(base: Base, config: GenerateConfig, *, on_step: OnStep | None = None) -> list[Picture]:
    """Generate pictures; the base is unchanged afterwards.

    Args:
        on_step: called after each step; when it returns False, the work stops and finished pictures are returned.

    Raises:
        InputError: a prompt names a concept that is not loaded, a size or sampler that the base cannot do, no memory.
    """
    height, width = _size(base, config)
    guided = config.guidance_scale > 1
    prompts = [config.negative_prompt, config.prompt, *(region.prompt for region in config.regions)]
    told = base.condition(prompts, weighted=True)
    recorded = _parameters(base, config, height, width)
    pictures: list[Picture] = []
    shape = base.latent_shape(height, width)
    with base.regions(config.regions, told[2:], size=shape[1:], guided=guided), _memory_advice(width, height):
        for number in range(config.num_images):
            # The generator is on the CPU, so that a seed means the same noise on every device.
            source = torch.Generator().manual_seed(config.seed + number)
            steps = base.denoise(
                told[1:2],
                torch.randn(1, *shape, generator=source, dtype=told.embeds.dtype),
                sampler=config.sampler,
                steps=config.num_inference_steps,
                uncondition=told[0:1] if guided else None,
                guidance_scale=config.guidance_scale,
                generator=source,
            )
            latents = _watched(steps, base, config, number, on_step)
            if latents is None:
                break
            settings = {**recorded.settings, "Seed": str(config.seed + number)}
            image = base.decode(latents)[0]
            pictures.append(Picture(image, config.seed + number, replace(recorded, settings=settings)))
    return pictures


def _watched(
    steps: Iterator[DenoisingStep], base: Base, config: GenerateConfig, number: int, on_step: OnStep | None
) -> Tensor | None:
    """The last step's latents; None where the caller has had enough."""
    latents = None
    for step in steps:
        latents = step.latents
        shown = Step(step.number, step.count, number + 1, config.num_images, latents, base)
        if on_step is not None and on_step(shown) is False:
            return None
    return latents


@contextmanager
def _memory_advice(width: int, height: int) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(
            f"no memory for a picture of {width}x{height}; lower the size, or use half precision"
        ) from error


def _size(base: Base, config: GenerateConfig) -> tuple[int, int]:
    """Height and width in pixels. Latents of uneven size are left to the denoiser, which rounds where it halves."""
    for name, value in (("height", config.height), ("width", config.width)):
        if value is not None and value % base.multiple:
            near = max(base.multiple, round(value / base.multiple) * base.multiple)
            raise InputError(f"{name} is {value}; give a multiple of {base.multiple}, such as {near}")
    return config.height or base.size, config.width or base.size


def _parameters(base: Base, config: GenerateConfig, height: int, width: int) -> Parameters:
    settings = {
        "Steps": str(config.num_inference_steps),
        "Sampler": config.sampler,
        "CFG scale": f"{config.guidance_scale:g}",
        "Seed": str(config.seed),
        "Size": f"{width}x{height}",
        "Model hash": base.fingerprint[:10],
        "Model": Path(base.name or "unknown").stem,
        **config.notes,
    }
    if config.regions:
        settings["Regions"] = json.dumps([[region.prompt, list(region.box)] for region in config.regions])
    settings["Version"] = f"spectral-fusion {__version__}"
    return Parameters(config.prompt, config.negative_prompt, settings)
