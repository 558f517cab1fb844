"""What to generate, and how pictures record it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from spectral_fusion import __version__
from spectral_fusion.base.interface import Base
from spectral_fusion.base.painted import mask_tensor
from spectral_fusion.base.regions import MAX_REGIONS, Region
from spectral_fusion.base.samplers import SAMPLERS
from spectral_fusion.errors import InputError
from spectral_fusion.picture import Parameters

MAX_SEED = 2**64 - 1
MAX_UPSCALE = 4


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
        init_image: a picture to begin from, cut to the shape of the new one. Pictures record its digest, not itself.
        strength: how much of the denoising is done on it: 0 leaves it, 1 takes nothing of it.
        repaint: a mask, as `base.painted` writes it: what of the init image is drawn anew; the rest stays. None: all.
        upscale: how much larger a second pass makes the picture; 1: there is none.
        upscale_strength: `strength` of that pass.
        detail: `strength` of a pass over each region's subject by itself; 0: there is none.
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
    init_image: Image.Image | None = field(default=None, repr=False)
    strength: float = 0.6
    repaint: str | None = field(default=None, repr=False)
    upscale: float = 1.0
    upscale_strength: float = 0.4
    detail: float = 0.0
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
        self._check_passes()
        if len(self.regions) > MAX_REGIONS:
            raise InputError(f"there are {len(self.regions)} regions; a picture has at most {MAX_REGIONS}")
        for name, span in self.spans.items():
            if len(span) != 2 or not 0 <= span[0] < span[1] <= 1:
                shown = "-".join(f"{edge:g}" for edge in span)
                raise InputError(f"concept {name!r} acts from {shown}; give two parts of the steps, such as 0.2-1")

    def _check_passes(self) -> None:
        for name in ("strength", "upscale_strength", "detail"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a number from 0 (as it is) to 1 (all anew)")
        if not 1 <= self.upscale <= MAX_UPSCALE:
            raise InputError(f"upscale is {self.upscale}; give a number from 1 to {MAX_UPSCALE}")
        if self.repaint is not None:
            mask_tensor(self.repaint)
            if self.init_image is None:
                raise InputError("a mask to repaint is given without an init image; give both")

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
                "upscale": float(said.get("Hires upscale", cls.upscale)),
                "upscale_strength": float(said.get("Hires strength", cls.upscale_strength)),
                "detail": float(said.get("Detail strength", cls.detail)),
                "strength": float(said.get("Denoising strength", cls.strength)),
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
    if config.init_image is not None:
        settings["Denoising strength"] = f"{config.strength:g}"
        settings["Init image"] = hashlib.sha256(config.init_image.convert("RGB").tobytes()).hexdigest()[:10]
        if config.repaint is not None:
            settings["Mask"] = config.repaint
    if config.upscale > 1:
        settings |= {"Hires upscale": f"{config.upscale:g}", "Hires strength": f"{config.upscale_strength:g}"}
    if config.detail:
        settings["Detail strength"] = f"{config.detail:g}"
    settings["Version"] = f"spectral-fusion {__version__}"
    return Parameters(config.prompt, config.negative_prompt, settings)
