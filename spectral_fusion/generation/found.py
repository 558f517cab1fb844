"""Places that the model finds: from where the first steps attend to each concept's words.

After FreeFuse (arXiv 2510.23515): a few steps with all concepts everywhere, the maps of their triggers cleaned, each
cell given to the concept that claims it most; then the picture is begun again, each concept in its place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_fusion.base.condition import DenoisingStep
from spectral_fusion.base.interface import Base
from spectral_fusion.base.painted import tensor_text
from spectral_fusion.base.regions import Region
from spectral_fusion.generation.bound import Live, Placeable, everywhere, words_of
from spectral_fusion.generation.config import GenerateConfig
from spectral_fusion.generation.draw import Pass, draw
from spectral_fusion.generation.outline import has_outline
from spectral_fusion.picture import format_weights

logger = logging.getLogger(__name__)

FIRST_STEPS = 0.3  # part of the steps that places are read from
CLAIM = 0.35  # of its own range from lowest to highest, what a concept must claim of a cell to have it
ROOM = 1.4  # a place is so much larger than what claims it


def with_places(
    base: Base,
    config: GenerateConfig,
    live: Live,
    begin: Pass,
    concepts: Mapping[Placeable, float],
    on_step: Callable[[DenoisingStep], bool | None],
) -> tuple[GenerateConfig, Live]:
    """The settings with each region's place; where they cannot be found, without these regions, and a note says so."""
    wanted = [number for number, region in enumerate(config.regions) if region.is_found]
    if not wanted:
        return config, live
    masks = find_places(base, config, live, begin, [config.regions[number] for number in wanted], concepts, on_step)
    if masks is None:
        logger.warning("no places were found; the concepts act everywhere, as when they are fused")
        kept = tuple(region for region in config.regions if not region.is_found)
        at_work = everywhere(live, [config.regions[number] for number in wanted])
        notes = {**config.notes, "Concepts": format_weights(at_work.weights), "Places": "not found"}
        return replace(config, regions=kept, notes=notes), at_work
    found = dict(zip(wanted, masks, strict=True))
    regions = tuple(r.at(tensor_text(found[n])) if n in found else r for n, r in enumerate(config.regions))
    return replace(config, regions=regions, notes={**config.notes, "Places": "found"}), live


def find_places(
    base: Base,
    config: GenerateConfig,
    live: Live,
    begin: Pass,
    regions: Sequence[Region],
    concepts: Mapping[Placeable, float],
    on_step: Callable[[DenoisingStep], bool | None] = lambda _: None,
) -> list[Tensor] | None:
    """A mask (height, width) of 0 and 1 for each region, or None where one of them is not found.

    The first steps are those of the plain way: the concepts act everywhere, at the regions' weights.
    """
    words = [words_of(region, concepts) for region in regions]
    tokens = [base.word_positions(config.prompt, own) for own in words]
    if not all(tokens):
        missing = next(own for own, found in zip(words, tokens, strict=True) if not found)
        logger.warning("the prompt does not name %s", " or ".join(missing) or "any concept of a region")
        return None
    until = max(1, round(FIRST_STEPS * config.num_inference_steps))
    size = base.latent_shape(*begin.size)[1:]
    with base.watch_words(tokens, size) as maps:
        draw(base, replace(config, regions=()), everywhere(live, regions), begin, on_step, until=until)
        found = maps()
    return None if found is None else share_out(found, size)


def share_out(maps: Tensor, size: tuple[int, int]) -> list[Tensor] | None:
    """Attention maps (subjects, height, width) as masks of `size` that do not overlap; None where one has no cell.

    Each map is smoothed, and put in its own range from 0 to 1. A cell goes to the map that is highest there, if it
    claims enough of it. A place is the rectangle over which these claims spread, so that a subject's ears and feet,
    which its words hardly attend to, have room as well; where rectangles meet, each cell goes to the nearest.
    """
    smooth = F.avg_pool2d(F.pad(maps[None], (1, 1, 1, 1), mode="replicate"), 3, 1)
    if not has_outline(smooth[0]):
        return None
    grown = F.interpolate(smooth, size=size, mode="bilinear", align_corners=False)[0]
    low, high = grown.amin((1, 2), keepdim=True), grown.amax((1, 2), keepdim=True)
    claims = (grown - low) / (high - low)
    own = F.one_hot(claims.argmax(0), len(maps)).movedim(-1, 0).bool() & (claims >= CLAIM)
    if not own.flatten(1).any(1).all():
        return None
    away = torch.stack([_away(claim.square() * mask) for claim, mask in zip(claims, own, strict=True)])
    inside = (away <= 1) & (away.argmin(0) == torch.arange(len(maps))[:, None, None])
    masks = [mask.float() for mask in inside]
    return masks if all(mask.any() for mask in masks) else None


def _away(claim: Tensor) -> Tensor:
    """(height, width): how far each cell is from a claim's middle, 1 at the edges of the rectangle that it fills.

    Over a rectangle that is claimed evenly the distance from the middle to an edge is the square root of 3 times the
    standard deviation.
    """
    weights = claim / claim.sum()
    distances = []
    for axis in (0, 1):
        share = weights.sum(1 - axis)
        cells = torch.arange(len(share)) + 0.5
        middle = (share * cells).sum()
        spread = (share * (cells - middle) ** 2).sum().sqrt()
        distances.append((cells - middle).abs() / (ROOM * 3**0.5 * spread).clamp(min=1.0))
    return torch.maximum(distances[0][:, None], distances[1][None, :])
