"""Masks of places at whatever resolution a layer works at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Place(Protocol):
    """Part of a picture."""

    def mask(self, height: int, width: int) -> Tensor:
        """(height, width) of 0 to 1: how much of each cell belongs to the place."""


class Box(NamedTuple):
    """A rectangle in parts of the picture, from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float

    def mask(self, height: int, width: int) -> Tensor:
        """(height, width) of 0 and 1: the cells whose centre is in the box, and always the one at the box's centre."""
        x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
        inside = ((y >= self.top) & (y < self.bottom))[:, None] & ((x >= self.left) & (x < self.right))[None, :]
        inside[int((self.top + self.bottom) / 2 * height), int((self.left + self.right) / 2 * width)] = True
        return inside.float()


@dataclass(frozen=True, eq=False)
class Painted:
    """A mask of any size and softness.

    values: (height, width) of 0 to 1.
    """

    values: Tensor

    def mask(self, height: int, width: int) -> Tensor:
        """(height, width): the mean over each cell."""
        grid = self.values.float()[None, None]
        while grid.shape[2] < height or grid.shape[3] < width:  # finer than painted: spread first, then average
            grid = F.interpolate(grid, scale_factor=2, mode="bilinear", align_corners=False)
        return F.interpolate(grid, size=(height, width), mode="area")[0, 0].clamp(0, 1)


class Masks:
    """How the cells of a picture are shared out among places, at each resolution that layers work at.

    Where masks overlap, they share by their sum; what they leave is nobody's.
    """

    def __init__(self, places: Sequence[Place], height: int, width: int) -> None:
        """height, width: of the latents."""
        self.places, self.height, self.width = places, height, width
        self._shares: dict[tuple[int, int], Tensor] = {}
        self._sizes: dict[int, tuple[int, int]] = {}

    def size(self, positions: int) -> tuple[int, int]:
        """Height and width of so many cells: each level of a UNet halves the sides, rounding up."""
        if positions not in self._sizes:
            height, width = self.height, self.width
            while height * width > positions:
                height, width = (height + 1) // 2, (width + 1) // 2
            self._sizes[positions] = height, width
        return self._sizes[positions]

    def shares(self, height: int, width: int) -> Tensor:
        """(places, height * width): each place's part of each cell; a cell's parts add up to at most 1."""
        if (height, width) not in self._shares:
            masks = [place.mask(height, width).flatten() for place in self.places]
            stacked = torch.stack(masks) if masks else torch.zeros(0, height * width)
            self._shares[height, width] = stacked / stacked.sum(0).clamp(min=1)
        return self._shares[height, width]
