"""Generating: prompts and regions to pictures, with previews on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from spectral_fusion import __version__
from spectral_fusion.concept import base_fingerprint
from spectral_fusion.errors import InputError
from spectral_fusion.picture import Parameters
from spectral_fusion.pipeline.prompt import encode_prompts
from spectral_fusion.pipeline.regions import Region, regional_prompts
from spectral_fusion.pipeline.samplers import SAMPLERS, make_sampler

MAX_SEED = 2**64 - 1
PREVIEW_LATENTS = 32


@dataclass(frozen=True)
class GenerateConfig:
    """What to generate.

    Attributes:
        num_inference_steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 turns it, and the negative prompt, off.
        sampler: a name of `SAMPLERS`.
        seed: of the first picture; the next ones count up.
        num_images: each picture is denoised on its own, so a seed gives the same picture in whatever company.
        height, width: pixels, multiples of 8; None: the base's own size.
        regions: prompts that rule in boxes; `prompt` rules outside.
        notes: more settings to record in the picture, such as the concepts that are loaded.

    Raises:
        InputError: a value that cannot be used.
    """

    prompt: str
    negative_prompt: str = ""
    num_inference_steps: int = 25
    guidance_scale: float = 5.0
    sampler: str = "DPM++ 2M"
    seed: int = 0
    num_images: int = 1
    height: int | None = None
    width: int | None = None
    regions: tuple[Region, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("num_inference_steps", "num_images", "height", "width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give a positive number")
        if self.num_inference_steps > 1000:
            raise InputError(f"num_inference_steps is {self.num_inference_steps}; a base has 1000 steps, 25 are usual")
        if not 0 <= self.guidance_scale < float("inf"):
            raise InputError(f"guidance_scale is {self.guidance_scale}; give 0 or more, usual are 3 to 7.5")
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
    pipeline: StableDiffusionPipeline = field(repr=False)

    def preview(self) -> Image.Image:
        """The picture as far as it is: latents (1, channels, height, width), made small first, through the decoder."""
        scale = min(1.0, PREVIEW_LATENTS / max(self.latents.shape[2:]))
        size = [max(1, round(edge * scale)) for edge in self.latents.shape[2:]]
        small = torch.nn.functional.interpolate(self.latents.float(), size=size, mode="area")
        return _decode(self.pipeline, small)


class _Stopped(Exception):
    """The caller has had enough."""


def generate(
    pipeline: StableDiffusionPipeline,
    config: GenerateConfig,
    *,
    on_step: Callable[[Step], bool | None] | None = None,
) -> list[Picture]:
    """Generate pictures; the pipeline is unchanged afterwards.

    Args:
        on_step: called after each step; when it returns False, the work stops and finished pictures are returned.

    Raises:
        InputError: a prompt names a concept that is not loaded, a size or sampler that the base cannot do, no memory.
    """
    height, width = _size(pipeline, config)
    guided = config.guidance_scale > 1
    regions = config.regions
    embeddings = encode_prompts(
        pipeline, [config.negative_prompt, config.prompt, *(region.prompt for region in regions)]
    )
    latent = {"height": height // pipeline.vae_scale_factor, "width": width // pipeline.vae_scale_factor}
    recorded = _parameters(pipeline, config, height, width)
    pictures: list[Picture] = []
    with (
        _sampler(pipeline, config.sampler),
        regional_prompts(pipeline, regions, embeddings[2:], guided=guided, **latent),
        _memory_advice(width, height),
    ):
        for number in range(config.num_images):
            seed = config.seed + number
            try:
                latents = _denoise(
                    pipeline, config, embeddings, seed, (height, width), _watcher(config, number, on_step)
                )
            except _Stopped:
                break
            settings = {**recorded.settings, "Seed": str(seed)}
            pictures.append(Picture(_decode(pipeline, latents), seed, replace(recorded, settings=settings)))
    return pictures


def _denoise(
    pipeline: StableDiffusionPipeline,
    config: GenerateConfig,
    embeddings: Tensor,
    seed: int,
    size: tuple[int, int],
    callback: Callable[..., dict[str, Tensor]],
) -> Tensor:
    """One picture's latents. The generator is on the CPU, so that a seed means the same noise on every device."""
    return pipeline(
        prompt_embeds=embeddings[1:2],
        negative_prompt_embeds=embeddings[0:1],
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        height=size[0],
        width=size[1],
        generator=torch.Generator().manual_seed(seed),
        callback_on_step_end=callback,
        output_type="latent",
    ).images


def _watcher(
    config: GenerateConfig, number: int, on_step: Callable[[Step], bool | None] | None
) -> Callable[..., dict[str, Tensor]]:
    """Diffusers' step callback, telling `on_step` and stopping where it says so."""

    def watch(pipeline: StableDiffusionPipeline, index: int, _: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if on_step is not None:
            step = Step(index + 1, pipeline.num_timesteps, number + 1, config.num_images, tensors["latents"], pipeline)
            if on_step(step) is False:
                raise _Stopped
        return tensors

    return watch


@torch.no_grad()
def _decode(pipeline: StableDiffusionPipeline, latents: Tensor) -> Image.Image:
    latents = latents.to(pipeline.vae.dtype) / pipeline.vae.config.scaling_factor
    return pipeline.image_processor.postprocess(pipeline.vae.decode(latents).sample)[0]


@contextmanager
def _sampler(pipeline: StableDiffusionPipeline, name: str) -> Iterator[None]:
    before = pipeline.scheduler
    pipeline.scheduler = make_sampler(pipeline, name)
    try:
        yield
    finally:
        pipeline.scheduler = before


@contextmanager
def _memory_advice(width: int, height: int) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(
            f"no memory for a picture of {width}x{height}; lower the size, or use half precision"
        ) from error


def _size(pipeline: StableDiffusionPipeline, config: GenerateConfig) -> tuple[int, int]:
    """Height and width in pixels. Latents of uneven size are left to diffusers, which rounds inside the UNet."""
    own = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    for name, value in (("height", config.height), ("width", config.width)):
        if value is not None and value % 8:
            raise InputError(f"{name} is {value}; give a multiple of 8, such as {max(8, round(value / 8) * 8)}")
    return config.height or own, config.width or own


def _parameters(pipeline: StableDiffusionPipeline, config: GenerateConfig, height: int, width: int) -> Parameters:
    settings = {
        "Steps": str(config.num_inference_steps),
        "Sampler": config.sampler,
        "CFG scale": f"{config.guidance_scale:g}",
        "Seed": str(config.seed),
        "Size": f"{width}x{height}",
        "Model hash": base_fingerprint(pipeline)[:10],
        "Model": Path(pipeline.name_or_path or "unknown").stem,
        **config.notes,
    }
    if config.regions:
        settings["Regions"] = json.dumps([[region.prompt, list(region.box)] for region in config.regions])
    settings["Version"] = f"spectral-fusion {__version__}"
    return Parameters(config.prompt, config.negative_prompt, settings)
