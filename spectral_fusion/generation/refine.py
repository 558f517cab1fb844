"""From picture to picture: image to image, repainting under a mask, a larger second pass, a detail pass a subject."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from torch import Tensor

from spectral_fusion.adapter.masks import Painted
from spectral_fusion.base.condition import DenoisingStep, Start
from spectral_fusion.base.control import Control
from spectral_fusion.base.interface import Base
from spectral_fusion.base.painted import mask_tensor
from spectral_fusion.base.regions import Region
from spectral_fusion.generation.bound import Live, Placeable, alone_in
from spectral_fusion.generation.config import GenerateConfig
from spectral_fusion.generation.draw import Pass, draw
from spectral_fusion.generation.fitting import fitted

OnStep = Callable[[DenoisingStep], bool | None]
GRID = 64  # cells a side in which a region's bounds are looked for
MARGIN = 0.08  # round a subject, in parts of its size: the closer, the larger it is drawn; see docs/results/places.md
BRACKETS = set("()[]")  # what a prompt's weights are written with
SOFT = 0.08  # how wide the edge of what is pasted back fades, in parts of the crop


def start_of(base: Base, config: GenerateConfig, size: tuple[int, int]) -> Start | None:
    """What the first pass begins from: the init image in latents, or nothing."""
    if config.init_image is None:
        return None
    latents = to_latents(base, fitted(config.init_image, size))
    if config.repaint is None:
        return Start(latents, config.strength)
    keep = 1 - Painted(mask_tensor(config.repaint)).mask(*latents.shape[2:])
    return Start(latents, config.strength, keep)


def to_latents(base: Base, image: Image.Image) -> Tensor:
    """(1, channels, height, width): the mean of the posterior, as the denoiser sees it."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).float().movedim(2, 0)[None] / 127.5 - 1
    posterior = base.encode(pixels)
    return posterior.sample(torch.zeros_like(posterior.mean))


def put_back(config: GenerateConfig, image: Image.Image) -> Image.Image:
    """What is not repainted, pixel for pixel as in the init image."""
    if config.init_image is None or config.repaint is None:
        return image
    mask = Painted(mask_tensor(config.repaint)).mask(image.height, image.width)
    paint = Image.fromarray((mask * 255).round().byte().numpy(), "L")
    return Image.composite(image, fitted(config.init_image, (image.height, image.width)), paint)


def enlarge(
    base: Base, config: GenerateConfig, live: Live, image: Image.Image, seed: int, on_step: OnStep
) -> Image.Image:
    """The picture made larger, and its middle and last steps done again at the new size."""
    sides = (image.height, image.width)
    height, width = (max(1, round(side * config.upscale / base.multiple)) * base.multiple for side in sides)
    large = image.resize((width, height), Image.Resampling.LANCZOS)
    begin = Pass((height, width), seed, Start(to_latents(base, large), config.upscale_strength))
    return base.decode(draw(base, config, live, begin, on_step))[0]


def refine(
    base: Base,
    config: GenerateConfig,
    live: Live,
    concepts: Mapping[Placeable, float],
    image: Image.Image,
    seed: int,
    on_step: OnStep,
) -> Image.Image:
    """Each region's subject drawn again by itself, at the base's own size, with its own concepts alone.

    What lies outside the region stays as it is, and is there to be seen: the neighbours of a subject come to no harm.
    """
    for region in config.regions:
        box = crop_box(region, image.size)
        crop, inside = cut_out(image, box), region_mask(region, image.size).crop(box)
        side = base.size
        alone, chosen = alone_in(region, config, live)
        alone = replace(
            alone,
            prompt=detail_prompt(config.prompt, region, concepts) or region.prompt or config.prompt,
            control=_cropped(config.control, box, image.size),
        )
        latents = to_latents(base, crop.resize((side, side), Image.Resampling.LANCZOS))
        anew = ImageChops.lighter(inside, beyond(image.size, box))
        keep = 1 - Painted(torch.from_numpy(np.array(anew)) / 255).mask(*latents.shape[2:])
        begin = Pass((side, side), seed, Start(latents, config.detail, keep))
        drawn = base.decode(draw(base, alone, chosen, begin, on_step))[0]
        image = image.copy()
        image.paste(drawn.resize(crop.size, Image.Resampling.LANCZOS), box[:2], soft_edge(anew))
    return image


def region_mask(region: Region, size: tuple[int, int]) -> Image.Image:
    """What a region covers of a picture of (width, height), white inside."""
    width, height = size
    return Image.fromarray((region.mask(height, width) * 255).round().byte().numpy(), "L")


def _cropped(control: Control | None, box: tuple[int, int, int, int], size: tuple[int, int]) -> Control | None:
    """A control picture of what the crop of a picture of (width, height) shows."""
    return control and replace(control, image=fitted(control.image, size[::-1]).crop(box))


def detail_prompt(prompt: str, region: Region, concepts: Mapping[Placeable, float]) -> str:
    """What a crop of one region shows: the picture's prompt with the region's own subjects in the place of all others.

    "a <rex> dog and a <tom> cat on grass" becomes "a <rex> dog on grass". Where the prompt does not name these
    subjects, or has brackets that this would tear apart, it is "a photo of a <rex> dog"; empty without concepts.
    """
    names = {name for name, _ in region.concepts}
    own = " and a ".join(_spoken(c) for c in concepts if c.name in names and c.trigger)
    triggers = [c.trigger for c in concepts if c.name in names and c.trigger]
    if not triggers or BRACKETS & set(prompt) or not all(trigger in prompt for trigger in triggers):
        return f"a photo of a {own}" if own else ""
    before, after = _round_mentions(prompt, [_mention(concept) for concept in concepts if concept.trigger])
    return before + own + after


def ground_prompt(prompt: str, concepts: Mapping[Placeable, float]) -> str:
    """What a picture shows without its subjects: its prompt without them, whether by trigger or by class.

    "a photo of a <rex> dog and a <tom> cat on grass" becomes "a photo on grass". Empty where the prompt names none
    of them, or has brackets that this would tear apart.
    """
    patterns = [_mention(concept) for concept in concepts if concept.trigger]
    patterns += [rf"\b{re.escape(_class_word(concept))}\b" for concept in concepts if _class_word(concept)]
    if BRACKETS & set(prompt) or not any(re.search(pattern, prompt) for pattern in patterns):
        return ""
    before, after = _round_mentions(prompt, patterns)
    return " ".join((re.sub(r"(\bof )?\b(an?|the)\s*$", "", before) + after).split())


def _round_mentions(prompt: str, patterns: Sequence[str]) -> tuple[str, str]:
    """What stands before the first of some words that a prompt has, and behind the last."""
    spans = [found.span() for pattern in patterns for found in re.finditer(pattern, prompt)]
    return prompt[: min(start for start, _ in spans)], prompt[max(end for _, end in spans) :]


def _mention(concept: Placeable) -> str:
    """A pattern of how a prompt speaks of a concept: its trigger, and its class behind it."""
    return rf"{re.escape(concept.trigger)}( {re.escape(_class_word(concept))}\b)?"


def _spoken(concept: Placeable) -> str:
    return f"{concept.trigger} {_class_word(concept)}".strip()


def _class_word(concept: Placeable) -> str:
    """Empty for what has none, such as a LoRA."""
    return getattr(concept, "class_word", "")


def crop_box(region: Region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square round a region with a margin, in pixels of a picture of (width, height).

    It may reach beyond the picture: a region at its edge is in the middle of the square too, where a base puts what it
    draws alone.
    """
    left, top, right, bottom = region_bounds(region, size)
    x, y = (left + right) / 2, (top + bottom) / 2
    half = min(max(right - left, bottom - top) * (1 + 2 * MARGIN), *size) / 2
    return round(x - half), round(y - half), round(x + half), round(y + half)


def region_bounds(region: Region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The rectangle that holds a region, in pixels of a picture of (width, height); all of it for an empty one."""
    inside = (region.mask(GRID, GRID) >= 0.25).nonzero()
    if not len(inside):
        return 0, 0, *size
    (top, left), (bottom, right) = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
    width, height = (side / GRID for side in size)
    return round(left * width), round(top * height), round(right * width), round(bottom * height)


def cut_out(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a picture; beyond the picture its outermost pixels go on."""
    left, top, right, bottom = box
    before, after = (max(0, -top), max(0, -left)), (max(0, bottom - image.height), max(0, right - image.width))
    grown = np.pad(np.array(image), (*zip(before, after, strict=True), (0, 0)), mode="edge")
    return Image.fromarray(grown).crop((left + before[1], top + before[0], right + before[1], bottom + before[0]))


def beyond(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """White where a box reaches beyond a picture of (width, height)."""
    return ImageChops.invert(Image.new("L", size, 255).crop(box))


def soft_edge(inside: Image.Image) -> Image.Image:
    """A region's mask in a crop, faded out at its own edges and at those of the crop."""
    width, height = inside.size
    rim = max(1, round(SOFT * min(inside.size) / 2))
    frame = Image.new("L", inside.size)
    ImageDraw.Draw(frame).rectangle((2 * rim, 2 * rim, width - 1 - 2 * rim, height - 1 - 2 * rim), fill=255)
    faded = (frame.filter(ImageFilter.GaussianBlur(rim)), inside.filter(ImageFilter.GaussianBlur(rim)), inside)
    return ImageChops.darker(ImageChops.darker(faded[0], faded[1]), faded[2])
