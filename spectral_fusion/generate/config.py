"""What to generate, and how pictures record it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectral_fusion import __version__
from spectral_fusion.base.interface import Base
from spectral_fusion.base.regions import MAX_REGIONS, Region
from spectral_fusion.base.samplers import SAMPLERS
from spectral_fusion.errors import InputError
from spectral_fusion.picture import Parameters

MAX_SEED = 2**64 - 1


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
        regions: prompts and concepts that rule in places; `prompt` rules outside.
        spans: for a concept, by name, the part of the denoising in which it acts, from 0 to 1. All of it by default.
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
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)
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
        if len(self.regions) > MAX_REGIONS:
            raise InputError(f"there are {len(self.regions)} regions; a picture has at most {MAX_REGIONS}")
        for name, span in self.spans.items():
            if len(span) != 2 or not 0 <= span[0] < span[1] <= 1:
                shown = "-".join(f"{edge:g}" for edge in span)
                raise InputError(f"concept {name!r} acts from {shown}; give two parts of the steps, such as 0.2-1")

    @classmethod
    def from_parameters(cls, parameters: Parameters) -> GenerateConfig:
        """The settings that a picture carries; what it does not say, or says in words unknown here, is the default.

        Raises:
            InputError: a number that is none.
        """
        said = parameters.settings
        width, _, height = said.get("Size", "").partition("x")
        try:
            spans = json.loads(said.get("Concept steps", "{}"))
            values: dict[str, Any] = {
                "num_inference_steps": int(said.get("Steps", cls.num_inference_steps)),
                "guidance_scale": float(said.get("CFG scale", cls.guidance_scale)),
                "seed": int(said.get("Seed", cls.seed)),
                "width": int(width) if width else None,
                "height": int(height) if height else None,
                "regions": tuple(Region.from_json(record) for record in json.loads(said.get("Regions", "[]"))),
                "spans": {str(name): (float(first), float(last)) for name, (first, last) in spans.items()},
            }
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"the picture's settings cannot be read ({error}); enter them by hand") from error
        if said.get("Sampler") in SAMPLERS:
            values["sampler"] = said["Sampler"]
        return cls(parameters.prompt, parameters.negative_prompt, **values)


def to_parameters(base: Base, config: GenerateConfig, height: int, width: int) -> Parameters:
    """What a picture made with these settings says of itself; `GenerateConfig.from_parameters` is the inverse."""
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
        settings["Regions"] = json.dumps([region.to_json() for region in config.regions])
    if config.spans:
        settings["Concept steps"] = json.dumps({name: list(span) for name, span in config.spans.items()})
    settings["Version"] = f"spectral-fusion {__version__}"
    return Parameters(config.prompt, config.negative_prompt, settings)
