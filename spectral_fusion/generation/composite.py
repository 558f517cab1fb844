"""Compositing: each subject drawn by itself with its own concepts, cut out along its outline, and put in its place.

Subjects that are drawn in one denoising share its attention, and the more there are, the less of each is left. Here
each has a picture to itself, as large as the base draws, so it is what it is alone; what is shared is the ground. That
is the picture of the whole prompt, with its own subjects taken out. At last the ground is drawn again round the
subjects, which stay pixel for pixel: grass grows up to the paws, and what the erasing smeared is gone. MuDI (arXiv
2404.04243) begins its denoising from a collage of cut-out photos; here no photo is needed, and nothing is drawn over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spectral_fusion.adapter.masks import Painted
from spectral_fusion.base.condition import DenoisingStep, Start
from spectral_fusion.base.interface import Base
from spectral_fusion.base.painted import tensor_text
from spectral_fusion.errors import InputError
from spectral_fusion.generation.bound import Live, Placeable, alone_in, everywhere, words_of
from spectral_fusion.generation.config import GenerateConfig
from spectral_fusion.generation.draw import Pass, draw
from spectral_fusion.generation.found import share_out
from spectral_fusion.generation.outline import filled, has_outline, outline, taken_out
from spectral_fusion.generation.refine import detail_prompt, ground_prompt, region_bounds, to_latents
from spectral_fusion.picture.parameters import MAX_SEED

OnStep = Callable[[DenoisingStep], bool | None]
ALIKE = 1.3  # a found place is at most so many times as large, or as small, as most
CROWDED = 0.9  # of half their widths together, how near two found places may come to one another
APART = 7919  # between the seeds of one picture's subjects: pictures of neighbouring seeds share none


@dataclass(frozen=True)
class Cutout:
    """A subject without its ground: RGBA, cut close."""

    image: Image.Image

    def into(self, bounds: tuple[int, int, int, int]) -> tuple[Image.Image, tuple[int, int]]:
        """As large as fits the bounds (left, top, right, bottom), and where: on their lower edge, in the middle."""
        left, top, right, bottom = bounds
        scale = min((right - left) / self.image.width, (bottom - top) / self.image.height)
        width, height = (max(1, round(side * scale)) for side in self.image.size)
        place = round((left + right - width) / 2), bottom - height
        return self.image.resize((width, height), Image.Resampling.LANCZOS), place


def composite(
    base: Base,
    config: GenerateConfig,
    live: Live,
    begin: Pass,
    concepts: Mapping[Placeable, float],
    on_step: OnStep,
) -> tuple[GenerateConfig, Image.Image] | None:
    """The picture, and the settings with each region's place; None where the subjects' outlines are not found.

    Raises:
        InputError: a region has no concept with a word of its own.
    """
    size = begin.size
    words = _words(config, concepts)
    whole, maps = _watched(base, replace(config, regions=()), everywhere(live, config.regions), begin, words, on_step)
    places = None if maps is None or not has_outline(maps) else _places(config, maps, base.latent_shape(*size)[1:])
    if maps is None or places is None:
        return None
    cutouts = []
    for number, region in enumerate(places.regions):
        cutout = _cut_out(base, config, live, concepts, number, words[number], begin.seed, on_step)
        if cutout is None:
            return None
        cutouts.append((cutout, region_bounds(region, size[::-1])))
    hole = taken_out(maps, size)
    ground = _to_image(filled(_to_pixels(whole), hole))
    pasted, covered = _pasted(ground, cutouts)
    anew = hole * (1 - covered)
    told = replace(places, prompt=ground_prompt(config.prompt, concepts))
    return places, _with_new_ground(base, told, Pass(size, begin.seed), pasted, anew, on_step)


def _words(config: GenerateConfig, concepts: Mapping[Placeable, float]) -> list[tuple[list[str], list[str]]]:
    """Of each region, the triggers of its concepts and their classes."""
    found = []
    for number, region in enumerate(config.regions, 1):
        names = {name for name, _ in region.concepts}
        classes = [getattr(concept, "class_word", "") for concept in concepts if concept.name in names]
        found.append((words_of(region, concepts), [word for word in classes if word]))
        if not found[-1][0]:
            raise InputError(
                f"region {number} has no concept with a trigger, so its subject cannot be cut out; "
                "give it one, or use detail in the place of composite"
            )
    return found


def _watched(
    base: Base,
    config: GenerateConfig,
    live: Live,
    begin: Pass,
    words: Sequence[tuple[list[str], list[str]]],
    on_step: OnStep,
) -> tuple[Image.Image, Tensor | None]:
    """A picture, and where it attends to each subject: to its trigger, or its class where the prompt has that alone.

    None where the prompt does not name them all.
    """
    tokens = [
        base.word_positions(config.prompt, triggers) or base.word_positions(config.prompt, classes)
        for triggers, classes in words
    ]
    if not all(tokens):
        return base.decode(draw(base, config, live, begin, on_step))[0], None
    with base.watch_words(tokens, base.latent_shape(*begin.size)[1:]) as maps:
        latents = draw(base, config, live, begin, on_step)
        seen = maps()
    return base.decode(latents)[0], seen


def _places(config: GenerateConfig, maps: Tensor, size: tuple[int, int]) -> GenerateConfig | None:
    """The settings with a place for each region without one: where the picture of the whole prompt has its subject."""
    if not any(region.is_found for region in config.regions):
        return config
    masks = share_out(maps, size)
    if masks is None:
        return None
    regions = tuple(
        region.at(tensor_text(mask)) if region.is_found else region
        for region, mask in zip(config.regions, side_by_side(masks), strict=True)
    )
    return replace(config, regions=regions, notes={**config.notes, "Places": "found"})


def side_by_side(masks: Sequence[Tensor]) -> list[Tensor]:
    """Places (height, width) of 0 and 1 as rectangles of like size that hardly overlap, from left to right as before.

    What is attended to in a crowded picture says well where a subject is, and badly how large: one that is named early
    claims its neighbours' cells. Each keeps its lower edge, and as much of its height as the others have.
    """
    height, width = masks[0].shape
    cells = [mask.nonzero() for mask in masks]
    middles = [float(own[:, 1].float().mean()) + 0.5 for own in cells]
    lowest = [int(own[:, 0].max()) + 1 for own in cells]
    sides = torch.tensor([len(own) ** 0.5 for own in cells])
    most = width / (CROWDED * (len(masks) - 1) + 1)  # as many of this size fill the picture's width
    typical = float(sides.median())
    sides = sides.clamp(typical / ALIKE, typical * ALIKE).clamp(max=most)
    order = sorted(range(len(masks)), key=middles.__getitem__)
    for row, step in ((order, 1), (order[::-1], -1)):  # away from the left edge and one another, then from the right
        edge = 0.0 if step == 1 else float(width)
        for place, number in enumerate(row):
            near = float(sides[number]) / 2
            if place:
                near = middles[row[place - 1]] + step * CROWDED * float(sides[number] + sides[row[place - 1]]) / 2
            else:
                near = edge + step * near
            middles[number] = max(middles[number], near) if step == 1 else min(middles[number], near)
    found = []
    for middle, side, low in zip(middles, sides.tolist(), lowest, strict=True):
        mask = torch.zeros(height, width)
        left, top = max(0, round(middle - side / 2)), max(0, round(low - side))
        mask[top:low, left : max(left + 1, round(middle + side / 2))] = 1
        found.append(mask)
    return found


def _cut_out(
    base: Base,
    config: GenerateConfig,
    live: Live,
    concepts: Mapping[Placeable, float],
    number: int,
    words: tuple[list[str], list[str]],
    seed: int,
    on_step: OnStep,
) -> Cutout | None:
    """One region's subject from a picture of its own; None where it has no outline."""
    region = config.regions[number]
    alone, chosen = alone_in(region, config, live)
    prompt = detail_prompt(config.prompt, region, concepts)
    alone = replace(alone, prompt=prompt, init_image=None, repaint=None, control=None)
    begin = Pass((base.size, base.size), (seed + APART * (number + 1)) % (MAX_SEED + 1))
    image, maps = _watched(base, alone, chosen, begin, [words], on_step)
    if maps is None or not has_outline(maps):
        return None
    opacity = Image.fromarray((outline(maps[0], begin.size) * 255).round().byte().numpy(), "L")
    image.putalpha(opacity)
    return Cutout(image.crop(opacity.getbbox() or (0, 0, *image.size)))


def _pasted(
    ground: Image.Image, cutouts: Sequence[tuple[Cutout, tuple[int, int, int, int]]]
) -> tuple[Image.Image, Tensor]:
    """The ground with the subjects on it, those that stand lowest last; and (height, width) of what they cover."""
    picture, covered = ground.copy(), Image.new("L", ground.size)
    for cutout, bounds in sorted(cutouts, key=lambda each: each[1][3]):
        image, place = cutout.into(bounds)
        picture.paste(image, place, image)
        covered.paste(255, place, image)
    return picture, torch.from_numpy(np.array(covered)).float() / 255


def _with_new_ground(
    base: Base, config: GenerateConfig, begin: Pass, picture: Image.Image, anew: Tensor, on_step: OnStep
) -> Image.Image:
    """The picture with some of it (height, width) drawn again; the rest stays pixel for pixel.

    Without concepts, and by a prompt that names no subject, or parts of them would be drawn there again. Without any
    prompt, edges come up in what the erasing smeared: the base means to draw something there.

    Args:
        config: with the prompt of the ground; where that is empty, what is round the ground says how it goes on.
    """
    plain = replace(config, regions=(), spans={})
    if not config.prompt:
        plain = replace(plain, negative_prompt="", guidance_scale=1.0)
    latents = to_latents(base, picture)
    keep = 1 - Painted(anew).mask(*latents.shape[2:])
    started = replace(begin, start=Start(latents, config.composite, keep))
    drawn = base.decode(draw(base, plain, Live({}, {}), started, on_step))[0]
    return Image.composite(drawn, picture, Image.fromarray((anew * 255).round().byte().numpy(), "L"))


def _to_pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).float().movedim(2, 0)


def _to_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.clamp(0, 255).round().byte().movedim(0, 2).numpy(), "RGB")
