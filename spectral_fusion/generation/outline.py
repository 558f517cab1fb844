"""Outlines of subjects from what a denoising attends to, and pictures with the subjects taken out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CONTRAST = 1.15  # highest over mean of a map: below, the subject is attended to everywhere alike
OUTLINE = 0.35  # of a map's own range, what belongs to the subject
ERASED = 0.3  # the same for what is taken out of a picture: rather too much than a rim of it
SOFT = 0.2  # how much of `OUTLINE`, to either side, the edge of an outline takes
NEAR = 1 / 26  # of the picture's side, what is erased round a subject
CELLS = 64  # a side at most, in which what hangs together is looked for
GAP = 4  # of these cells: parts of a subject that are twice as far from one another hang together


def has_outline(maps: Tensor) -> bool:
    """Whether each of some attention maps (subjects, height, width) stands out."""
    return bool((maps.amax((1, 2)) >= CONTRAST * maps.mean((1, 2))).all())


def outline(attention: Tensor, size: tuple[int, int]) -> Tensor:
    """The opacity (height, width), from 0 to 1, of the subject that an attention map (cells down, across) shows.

    Words attend to heads and hands more than to a dress between them: gaps are closed, and what is enclosed belongs to
    the subject. Where there are several parts even so, it is the largest: a base may draw a subject twice.
    """
    values = _ranged(attention[None], size)[0]
    coarse = (min(CELLS, size[0]), min(CELLS, size[1]))
    whole = _without_holes(_largest(_closed(_ranged(attention[None], coarse) >= OUTLINE)[0])).float()[None]
    near, within = (F.interpolate(mask[None], size=size)[0, 0] for mask in (_grown(whole, 1), _shrunk(whole, 1)))
    soft = ((values - (1 - SOFT) * OUTLINE) / (2 * SOFT * OUTLINE)).clamp(0, 1)
    return torch.maximum(soft * near, within)


def taken_out(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(height, width) of 0 and 1: where any of the subjects of attention maps (subjects, cells down, across) is."""
    claimed = (_ranged(maps, size).amax(0, keepdim=True) >= ERASED).float()
    return _grown(claimed, max(1, round(NEAR * min(size))))[0]


def filled(pixels: Tensor, hole: Tensor) -> Tensor:
    """Pixels (3, height, width) with what is inside of a hole (height, width) made from what is round it.

    Pull and push: what is known is averaged on ever coarser grids, to the sides first and then up and down, and the
    unknown takes the finest average that there is. A ground goes on sideways, as a horizon does.
    """
    return _pulled(pixels[None], 1 - hole[None, None])[0]


def _pulled(pixels: Tensor, known: Tensor) -> Tensor:
    height, width = pixels.shape[2:]
    if known.min() > 0 or height == width == 1:
        return pixels
    step = (1, 2) if width > 1 else (2, 1)
    even = (0, width % step[1], 0, height % step[0])
    padded, mask = F.pad(pixels * known, even, mode="replicate"), F.pad(known, even, mode="replicate")
    share = F.avg_pool2d(mask, step)
    coarse = _pulled(F.avg_pool2d(padded, step) / share.clamp(min=1e-6), (share > 0).float())
    spread = F.interpolate(coarse, size=padded.shape[2:], mode="bilinear", align_corners=False)
    return pixels * known + spread[..., :height, :width] * (1 - known)


def _ranged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps at another size, each in its own range from 0 to 1."""
    large = F.interpolate(maps[None].float(), size=size, mode="bicubic", align_corners=False)[0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return (large - low) / (high - low).clamp(min=1e-9)


def _grown(mask: Tensor, cells: int) -> Tensor:
    """A mask (1, height, width) with so many cells more to each side."""
    return F.max_pool2d(mask, 2 * cells + 1, 1, cells)


def _shrunk(mask: Tensor, cells: int) -> Tensor:
    """A mask (1, height, width) with so many cells less to each side; the picture's own edge takes none."""
    return 1 - _grown(1 - mask, cells)


def _closed(mask: Tensor) -> Tensor:
    """A mask (1, height, width) with gaps of up to two times `GAP` cells closed."""
    room = F.pad(mask.float(), (GAP, GAP, GAP, GAP))  # or all would reach to the picture's edge that comes near it
    return _shrunk(_grown(room, GAP), GAP)[:, GAP:-GAP, GAP:-GAP] > 0


def _without_holes(mask: Tensor) -> Tensor:
    """A mask (height, width) with all that it encloses: what no way leads to from the picture's edge."""
    free = ~mask
    outside = torch.zeros_like(mask)
    outside[0], outside[-1], outside[:, 0], outside[:, -1] = free[0], free[-1], free[:, 0], free[:, -1]
    while True:
        spread = (_grown(outside.float()[None], 1)[0] > 0) & free
        if torch.equal(spread, outside):
            return ~outside
        outside = spread


def _largest(mask: Tensor) -> Tensor:
    """The largest part of a mask (height, width) that hangs together."""
    labels = torch.arange(1, mask.numel() + 1, dtype=torch.float32).view_as(mask) * mask
    while True:
        spread = _grown(labels[None], 1)[0] * mask
        if torch.equal(spread, labels):
            break
        labels = spread
    parts, counts = labels[mask].unique(return_counts=True)
    return labels == parts[counts.argmax()] if len(parts) else mask
