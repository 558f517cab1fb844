"""What to generate, and how pictures record it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field, InstanceOf
from pydantic.dataclasses import dataclass

from spectral_fusion import __version__
from spectral_fusion.base.control import Control
from spectral_fusion.base.interface import Base
from spectral_fusion.base.painted import mask_tensor
from spectral_fusion.base.regions import MAX_REGIONS, Region
from spectral_fusion.base.samplers import SAMPLERS
from spectral_fusion.errors import InputError
from spectral_fusion.picture import Parameters
from spectral_fusion.picture.parameters import MAX_SEED
from spectral_fusion.reading import parse_json
from spectral_fusion.reading.modes import as_rgb
from spectral_fusion.settings import CHECKED, MOST_PICTURES, NonNegative, checked

MAX_UPSCALE = 4
MAX_EDGE = 8192  # pixels


@checked
@dataclass(frozen=True, config=CHECKED)
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
    num_images: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    """Each picture is denoised on its own, so a seed gives the same picture in whatever company."""
    height: Annotated[int, Field(ge=1, le=MAX_EDGE)] | None = None
    """In pixels, a multiple of 8; None: the base's own size."""
    width: Annotated[int, Field(ge=1, le=MAX_EDGE)] | None = None
    regions: tuple[InstanceOf[Region], ...] = ()
    """Prompts and concepts that rule in places; `prompt` rules outside."""
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """For a concept, by name, the part of the denoising in which it acts, from 0 to 1. All of it by default."""
    init_image: InstanceOf[Image.Image] | None = field(default=None, repr=False)
    """A picture to begin from, cut to the shape of the new one. Pictures record its digest, not itself."""
    strength: float = 0.6
    """How much of the denoising is done on the init image: 0 leaves it pixel for pixel, 1 takes nothing of it."""
    repaint: str | None = field(default=None, repr=False)
    """A mask, as `base.painted` writes it: what of the init image is drawn anew; the rest stays. None: all."""
    control: InstanceOf[Control] | None = field(default=None, repr=False)
    """A picture that a ControlNet reads, cut to the shape of the new one. Pictures record its digest, not itself."""
    upscale: float = 1.0
    """How much larger a second pass makes the picture; 1: there is none."""
    upscale_strength: float = 0.4
    """`strength` of that pass."""
    detail: float = 0.0
    """`strength` of a pass over each region's subject by itself; 0: there is none."""
    composite: float = 0.0
    """Each region's subject is drawn in a picture of its own, cut out and put in its place, and the ground round them
    is drawn again at this strength; 0: subjects are drawn together."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """More settings to record in the picture, such as the concepts that are loaded."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED - self.num_images + 1:
            raise InputError(f"seed is {self.seed}; give a number from 0 to {MAX_SEED - self.num_images + 1}")
        self._check_passes()
        if len(self.regions) > MAX_REGIONS:
            raise InputError(f"there are {len(self.regions)} regions; a picture has at most {MAX_REGIONS}")
        for name, span in self.spans.items():
            if not 0 <= span[0] < span[1] <= 1:
                shown = "-".join(f"{edge:g}" for edge in span)
                raise InputError(f"concept {name!r} acts from {shown}; give two parts of the steps, such as 0.2-1")

    def _check_passes(self) -> None:
        for name in ("strength", "upscale_strength", "detail", "composite"):
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
            spans = parse_json(said.get("Concept steps", "{}"), "Concept steps")
            regions = parse_json(said.get("Regions", "[]"), "Regions")
            values: dict[str, Any] = {
                "num_inference_steps": int(said.get("Steps", cls.num_inference_steps)),
                "guidance_scale": float(said.get("CFG scale", cls.guidance_scale)),
                "seed": int(said.get("Seed", cls.seed)),
                "width": int(width) if width else None,
                "height": int(height) if height else None,
                "regions": tuple(Region.from_json(record) for record in regions),
                "upscale": float(said.get("Hires upscale", cls.upscale)),
                "upscale_strength": float(said.get("Hires strength", cls.upscale_strength)),
                "detail": float(said.get("Detail strength", cls.detail)),
                "composite": float(said.get("Composite strength", cls.composite)),
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
        settings["Init image"] = image_digest(config.init_image)
        if config.repaint is not None:
            settings["Mask"] = config.repaint
    if config.control is not None:
        settings |= _control_settings(config.control)
    if config.upscale > 1:
        settings |= {"Hires upscale": f"{config.upscale:g}", "Hires strength": f"{config.upscale_strength:g}"}
    if config.detail:
        settings["Detail strength"] = f"{config.detail:g}"
    if config.composite:
        settings["Composite strength"] = f"{config.composite:g}"
    settings["Version"] = f"spectral-fusion {__version__}"
    return Parameters(config.prompt, config.negative_prompt, settings)


def _control_settings(control: Control) -> dict[str, str]:
    return {
        "ControlNet": control.net.name,
        "Control image": image_digest(control.image),
        "Control scale": f"{control.scale:g}",
        "Control steps": f"{control.start:g}-{control.end:g}",
    }


def control_numbers(settings: Mapping[str, str]) -> tuple[float, float, float]:
    """Scale, start and end of the control picture that a picture was made with.

    Raises:
        InputError: they cannot be read.
    """
    first, _, last = settings.get("Control steps", "0-1").partition("-")
    try:
        return float(settings.get("Control scale", 1.0)), float(first), float(last)
    except ValueError as error:
        raise InputError(f"the picture's control settings cannot be read ({error}); enter them by hand") from error


def image_digest(image: Image.Image) -> str:
    """By which pictures name their init image: of its pixels."""
    return hashlib.sha256(as_rgb(image).tobytes()).hexdigest()[:10]
