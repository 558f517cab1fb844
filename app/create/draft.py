"""What is asked for in Create, apart from the page: a picture that has yet to be made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import randbelow
from typing import TYPE_CHECKING, Any, NamedTuple

from spectral_fusion.errors import InputError
from spectral_fusion.names import key
from spectral_fusion_app.create.control import ControlDraft
from spectral_fusion_app.create.drawing import Request
from spectral_fusion_app.create.grid import Axis, read_axes
from spectral_fusion_app.create.wording import Known, Spelling, is_lora, used_concepts
from spectral_fusion_app.engine import samplers
from spectral_fusion_app.settings import Limits

if TYPE_CHECKING:
    from PIL import Image

    from spectral_fusion.picture import Parameters

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as fractions of the picture."""

LARGEST_DRAWN_SEED = 2**32
LONGEST_SEED = 20  # digits


class RegionDraft(NamedTuple):
    """A part of the picture.

    box: None for a place that the model finds. concept: acts here alone. mask: a place found earlier, instead of a box.
    """

    prompt: str
    box: Box | None
    concept: str = ""
    mask: str | None = None


class StartDraft(NamedTuple):
    """A picture to begin from.

    picture: its digest, as `Starts` keeps it. strength: how much of it is drawn anew. mask: where; None: everywhere.
    """

    picture: str
    strength: float = 0.6
    mask: str | None = None


@dataclass(frozen=True)
class Draft:
    """The settings, as text where a visitor types text.

    Attributes:
        weights: of each concept that had one, by name; those in use are found in the prompts.
        pinned: concepts in use although no prompt names them.
        regions: parts of the picture with a prompt or a concept of their own.
        spans: of a concept, by name: the part of the steps in which it acts, from 0 to 1.
        seed: text; empty draws one.
        axes: setting and values of each axis of a grid, such as `("weights", "0, 0.5, 1")`.
        left_out: what the picture that it comes from says and nothing here can do, a phrase each.
        start: a picture to begin from.
        control: a picture that a ControlNet reads.
        upscale, upscale_strength: how much larger a second pass makes the picture, and how much it draws anew.
        detail: how much of each region's subject is drawn again by itself, in a pass of its own.
        composite: how much of the ground is drawn again round subjects that were drawn apart; 0: they are not.
    """

    prompt: str
    negative_prompt: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    regions: tuple[RegionDraft, ...] = ()
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sampler: str = "DPM++ 2M"
    steps: int = 25
    guidance_scale: float = 5.0
    width: int | None = None
    height: int | None = None
    seed: str = ""
    num_images: int = 1
    axes: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = field(default=(), compare=False)
    start: StartDraft | None = None
    control: ControlDraft | None = None
    upscale: float = 1.0
    upscale_strength: float = 0.4
    detail: float = 0.0
    composite: float = 0.0

    def request(
        self,
        concepts: Iterable[Known],
        triggers: Sequence[str] = (),
        find_start: Callable[[str, str], Image.Image] | None = None,
        limits: Limits | None = None,
    ) -> Request:
        """What to ask of the studio. `<lora:name:0.8>` in the prompt is a concept with that weight.

        Args:
            concepts: those, and the LoRAs, that fit the base.
            triggers: others that the base knows by itself.
            find_start: a picture to begin from, or that controls, by its digest and what errors call it.
            limits: what this page allows.

        Raises:
            InputError: nothing to draw, or a value that cannot be used.
        """
        from spectral_fusion.base.prompt import take_lora_tags
        from spectral_fusion.base.regions import Region
        from spectral_fusion.generation import GenerateConfig

        if not self.prompt.strip():
            raise InputError("the prompt is empty; write what to draw, or press a concept")
        if limits:
            self._check_numbers(limits)
        prompt, tagged = take_lora_tags(self.prompt)
        concepts = list(concepts)
        if unknown := sorted(set(self.pinned) - {info.name for info in concepts}):
            names = ", ".join(info.name for info in concepts) or "none"
            raise InputError(f"no concept {unknown[0]!r} in the library fits this base; those that do: {names}")
        if self.detail and not self.regions:
            raise InputError("detail is drawn in regions, and there are none; mark each subject by a region first")
        if self.composite and not self.regions:
            raise InputError("regions are missing: subjects are put into regions; mark each subject by one first")
        spell = Spelling(concepts, triggers)
        prompt, negative = spell(prompt), spell(self.negative_prompt)
        texts = [prompt, negative, *(spell(region.prompt) for region in self.regions)]
        placed = [region.concept for region in self.regions if region.concept]
        used = used_concepts(concepts, texts, (*self.pinned, *placed))
        config = GenerateConfig(
            prompt,
            negative,
            num_inference_steps=int(self.steps),
            guidance_scale=float(self.guidance_scale),
            sampler=self.sampler,
            seed=parse_seed(self.seed),
            num_images=int(self.num_images),
            width=self.width and int(self.width),
            height=self.height and int(self.height),
            regions=tuple(
                Region(
                    spell(region.prompt).strip() or prompt,
                    None if region.mask else region.box,
                    region.mask,
                    ((region.concept, 1.0),) if region.concept else (),
                )
                for region in self.regions
            ),
            spans={name: span for name, span in self.spans.items() if name in used and span != (0.0, 1.0)},
            **self._passes(find_start),
        )
        known = {key(info.name): info.name for info in concepts}
        tagged = {known.get(key(name), name): weight for name, weight in tagged.items()}
        weights = {name: float(self.weights.get(name, 1.0)) for name in used} | tagged
        axes = tuple(Axis.parse(setting, values, samplers()) for setting, values in self.axes)
        loras = frozenset(weights) & {info.name for info in concepts if is_lora(info)}
        control = self.control and find_start and self.control.asked(find_start)
        return Request(config, weights, axes, loras, control or None)

    def _check_numbers(self, limits: Limits) -> None:
        """Raises InputError that names the page's own bounds, which are narrower than those of `GenerateConfig`."""
        bounds = {"steps": limits.steps, "num_images": limits.pictures, "width": limits.edge, "height": limits.edge}
        for name, most in bounds.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise InputError(f"{name} is {value}; give a whole number from 1 to {most}")

    def _passes(self, find_start: Callable[[str, str], Image.Image] | None) -> dict[str, Any]:
        """What begins from a picture, and what comes after the first pass, as `GenerateConfig` takes it."""
        passes = {
            "upscale": float(self.upscale),
            "upscale_strength": float(self.upscale_strength),
            "detail": float(self.detail),
            "composite": float(self.composite),
        }
        if self.start is None or find_start is None:
            return passes
        begun = {
            "init_image": find_start(self.start.picture, "the start picture"),
            "strength": float(self.start.strength),
        }
        return passes | begun | {"repaint": self.start.mask}

    @classmethod
    def from_parameters(cls, parameters: Parameters) -> Draft:
        """The draft of a picture that is there. Raises InputError where its settings cannot be read."""
        from spectral_fusion.generation import GenerateConfig

        config = GenerateConfig.from_parameters(parameters)
        grid = parameters.settings.get("Grid", "")
        pictures = parameters.settings.get("Grid pictures", "1")
        begun = parameters.settings.get("Init image", "")
        return cls(
            config.prompt,
            config.negative_prompt,
            weights=parameters.weights,
            pinned=tuple(parameters.weights),
            regions=tuple(
                RegionDraft(region.prompt, region.box, region.concepts[0][0] if region.concepts else "", region.painted)
                for region in config.regions
            ),
            spans=dict(config.spans),
            sampler=config.sampler,
            steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            width=config.width,
            height=config.height,
            seed=str(config.seed),
            num_images=int(pictures) if grid and pictures.isdecimal() and len(pictures) < 4 else 1,
            axes=read_axes(grid),
            left_out=parameters.left_out,
            start=StartDraft(begun, config.strength, parameters.settings.get("Mask")) if begun else None,
            control=ControlDraft.of_settings(parameters.settings),
            upscale=config.upscale,
            upscale_strength=config.upscale_strength,
            detail=config.detail,
            composite=config.composite,
        )


def picture_draft(path: Path) -> Draft:
    """The draft that a picture carries. Raises InputError, which names the file alone and not its folder."""
    from spectral_fusion.picture import read_parameters

    try:
        return Draft.from_parameters(read_parameters(path))
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error


def draw_seed() -> str:
    """A random seed, as text."""
    return str(randbelow(LARGEST_DRAWN_SEED))


def parse_seed(text: str) -> int:
    """A seed as a number; empty text draws one. Raises InputError."""
    text = str(text).strip() or draw_seed()
    if not text.isdecimal() or len(text) > LONGEST_SEED:
        raise InputError(f"seed {text[:40]!r} is no whole number; write digits, or leave it empty to draw one")
    return int(text)
