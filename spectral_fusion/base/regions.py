"""Regions: parts of a picture with a prompt, concepts and a place of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from spectral_fusion.adapter.masks import Box, Painted
from spectral_fusion.base.painted import mask_tensor
from spectral_fusion.errors import InputError

__all__ = ["Box", "Region", "side_by_side"]
MAX_REGIONS = 16


def side_by_side(count: int) -> list[Box]:
    """Equal squares in the middle of the picture's height, from left to right; one is the whole picture."""
    half = 0.5 / count
    return [Box(i / count, 0.5 - half, (i + 1) / count, 0.5 + half) for i in range(count)]


@dataclass(frozen=True)
class Region:
    """A part of the picture: what it shows, who is in it, and where it is.

    Attributes:
        prompt: empty for the picture's own, where the region has concepts.
        box: left, top, right, bottom as fractions of the picture: (0, 0, 0.5, 1) is its left half.
        painted: a mask instead of a box, as `painted.read_mask` gives it. Neither: the place is found by the model.
        concepts: names and weights of the concepts that act in this region alone. A mapping is taken too.

    Raises:
        InputError: the box is not inside the picture or has no area, the mask cannot be read, there is neither prompt
            nor concept, or a weight is no number.
    """

    prompt: str
    box: tuple[float, float, float, float] | None = None
    painted: str | None = None
    concepts: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.concepts, Mapping):
            object.__setattr__(self, "concepts", tuple(self.concepts.items()))
        if not self.prompt.strip() and not self.concepts:
            raise InputError("a region has neither a prompt nor a concept; give it one of them")
        for name, weight in self.concepts:
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
                raise InputError(
                    f"region {self.prompt!r} has the weight {weight!r} of {name!r}; give a number such as 0.8"
                )
        if self.box is not None and self.painted is not None:
            raise InputError(f"region {self.prompt!r} has a box and a mask; give one of them")
        if self.box is not None:
            self._check_box(self.box)
        if self.painted is not None:
            mask_tensor(self.painted)

    def _check_box(self, box: tuple[float, ...]) -> None:
        if len(box) != 4:
            raise InputError(f"region {self.prompt!r} has {len(box)} numbers; give four: left,top,right,bottom")
        left, top, right, bottom = box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            shown = ",".join(f"{edge:g}" for edge in box)
            raise InputError(
                f"region {self.prompt!r} has the box {shown}, which is outside the picture or empty; "
                "give fractions with 0 <= left < right <= 1 and 0 <= top < bottom <= 1"
            )

    @classmethod
    def parse(cls, prompt: str, box: str, concepts: tuple[tuple[str, float], ...] = ()) -> Region:
        """From the text `0.05,0.2,0.5,0.95`, or `auto`. Raises InputError."""
        if box.strip() == "auto":
            return cls(prompt, concepts=concepts)
        try:
            numbers = tuple(float(number) for number in box.split(","))
        except ValueError as error:
            raise InputError(f"region {prompt!r} has the box {box!r}; give four numbers: 0.05,0.2,0.5,0.95") from error
        return cls(prompt, numbers, concepts=concepts)  # type: ignore[arg-type]

    def times(self, factor: float) -> Region:
        """The same region with the weights of its concepts multiplied."""
        return replace(self, concepts=tuple((name, weight * factor) for name, weight in self.concepts))

    @property
    def is_found(self) -> bool:
        """Whether its place is for the model to find."""
        return self.box is None and self.painted is None

    def at(self, painted: str) -> Region:
        """The same region where a mask says."""
        return replace(self, box=None, painted=painted)

    def mask(self, height: int, width: int) -> Tensor:
        """(height, width) of 0 to 1: how much of each cell is in the region. Raises InputError where none is known."""
        if self.painted is not None:
            return Painted(mask_tensor(self.painted)).mask(height, width)
        if self.box is None:
            raise InputError(f"region {self.prompt!r} has no place yet; give a box or a mask")
        return Box(*self.box).mask(height, width)

    def to_json(self) -> Any:
        """As pictures record it: prompt and box, or all that it has by name."""
        if self.box is not None and not self.concepts:
            return [self.prompt, list(self.box)]
        record = {"prompt": self.prompt, "box": self.box and list(self.box), "mask": self.painted}
        return {key: value for key, value in record.items() if value is not None} | {"concepts": dict(self.concepts)}

    @classmethod
    def from_json(cls, record: Any) -> Region:
        """The inverse of `to_json`. Raises InputError, ValueError or TypeError."""
        if not isinstance(record, dict):
            prompt, box = record
            return cls(str(prompt), tuple(map(float, box)))  # type: ignore[arg-type]
        box = record.get("box")
        return cls(
            str(record.get("prompt", "")),
            None if box is None else tuple(map(float, box)),  # type: ignore[arg-type]
            record.get("mask"),
            tuple((str(name), float(weight)) for name, weight in dict(record.get("concepts", {})).items()),
        )
