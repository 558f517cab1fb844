"""What is on the Generate tab, apart from its widgets: a picture that has yet to be made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from secrets import randbelow
from typing import TYPE_CHECKING, NamedTuple

from spectral_fusion.errors import InputError
from spectral_fusion.names import key, mentions, respell, speaks_of
from spectral_fusion_app.create.drawing import Request
from spectral_fusion_app.create.grid import Axis, read_axes
from spectral_fusion_app.engine import samplers

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo
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


@dataclass(frozen=True)
class Draft:
    """The settings of the tab, as text where a visitor types text.

    Attributes:
        weights: of each concept that had one, by name; those in use are found in the prompts.
        pinned: concepts in use although no prompt names them.
        regions: parts of the picture with a prompt or a concept of their own.
        spans: of a concept, by name: the part of the steps in which it acts, from 0 to 1.
        seed: text; empty draws one.
        axes: setting and values of each axis of a grid, such as `("weights", "0, 0.5, 1")`.
        left_out: what the picture that it comes from says and nothing here can do, a phrase each.
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

    def request(self, concepts: Iterable[ConceptInfo], triggers: Sequence[str] = ()) -> Request:
        """What to ask of the studio. `<lora:name:0.8>` in the prompt is a concept with that weight.

        Args:
            concepts: those that fit the base.
            triggers: others that the base knows by itself.

        Raises:
            InputError: nothing to draw, or a value that cannot be used.
        """
        from spectral_fusion.base.prompt import take_lora_tags
        from spectral_fusion.base.regions import Region
        from spectral_fusion.generation import GenerateConfig

        if not self.prompt.strip():
            raise InputError("the prompt is empty; write what to draw, or press a concept")
        prompt, tagged = take_lora_tags(self.prompt)
        concepts = list(concepts)
        if unknown := sorted(set(self.pinned) - {info.name for info in concepts}):
            names = ", ".join(info.name for info in concepts) or "none"
            raise InputError(f"no concept {unknown[0]!r} in the library fits this base; those that do: {names}")
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
        )
        known = {key(info.name): info.name for info in concepts}
        tagged = {known.get(key(name), name): weight for name, weight in tagged.items()}
        weights = {name: float(self.weights.get(name, 1.0)) for name in used} | tagged
        axes = tuple(Axis.parse(setting, values, samplers()) for setting, values in self.axes)
        return Request(config, weights, axes)

    @classmethod
    def from_parameters(cls, parameters: Parameters) -> Draft:
        """The draft of a picture that is there. Raises InputError where its settings cannot be read."""
        from spectral_fusion.generation import GenerateConfig

        config = GenerateConfig.from_parameters(parameters)
        grid = parameters.settings.get("Grid", "")
        pictures = parameters.settings.get("Grid pictures", "1")
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


class Spelling:
    """Triggers in a prompt as their concepts write them: case does not matter to whoever types.

    Raises:
        InputError: when called, with a trigger that nothing has, which names the nearest.
    """

    def __init__(self, concepts: Iterable[ConceptInfo], others: Sequence[str] = ()) -> None:
        self.known = {key(trigger): trigger for trigger in (*others, *(info.trigger for info in concepts))}

    def __call__(self, text: str) -> str:
        for written in mentions(text):
            if key(written) not in self.known:
                self._refuse(written)
        return respell(text, self.known.values())

    def _refuse(self, written: str) -> None:
        near = get_close_matches(key(written), self.known, n=1)
        advice = (
            f"did you mean {self.known[near[0]]}?" if near else f"there are: {', '.join(self.known.values()) or 'none'}"
        )
        raise InputError(f"no concept here has the trigger {written[:66]}; {advice}")


def phrase(info: ConceptInfo) -> str:
    """How a prompt speaks of a concept: `a <rex> dog`."""
    return f"a {info.trigger} {info.class_word}".strip()


def region_phrase(prompt: str, info: ConceptInfo, others: Sequence[ConceptInfo]) -> str:
    """What a region of a concept begins with: the picture's prompt without the others' triggers.

    All regions together settle what stands where, so each tells of the whole picture; a prompt that does not speak of
    the concept yet gives `a <rex> dog`.
    """
    if not speaks_of(prompt, info.trigger):
        return phrase(info)
    for other in others:
        if other.trigger != info.trigger:
            prompt = remove(prompt, other)
    return prompt


def remove(prompt: str, info: ConceptInfo) -> str:
    """The prompt without a concept's trigger: `a <rex> dog` becomes `a dog`."""
    return re.sub(rf"\s*{re.escape(info.trigger)}", "", respell(prompt, [info.trigger])).strip()


def used_concepts(concepts: Iterable[ConceptInfo], prompts: Iterable[str], pinned: Sequence[str] = ()) -> list[str]:
    """Names of the concepts whose trigger stands in a prompt, as they come there, then of the pinned ones."""
    text = key("\n".join(prompts))
    places = {info.name: text.find(key(info.trigger)) for info in concepts}
    named = sorted((name for name, place in places.items() if place >= 0), key=lambda name: places[name])
    return [*named, *(name for name in places if name in pinned and name not in named)]
