# Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0
from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from peft.config import PeftConfig
from peft.utils import PeftType


@dataclass
class SpectralConfig(PeftConfig):
    """
    Configuration of a [`SpectralModel`].

    Args:
        r (`int`):
            How many singular directions of each weight the adapter is anchored in: the width of its band.
        band (`int`):
            Which slice of r directions it is, counted from 0. Adapters in different bands of one model start from
            different directions.
        side (`Literal["top", "bottom"]`):
            Where bands count from: the largest singular values, or the smallest.
        mode (`Literal["additive", "rotational"]`):
            Additive adapters shift the band's singular vectors: r (out + in) parameters, rank 2r. Rotational ones turn
            them within their span: 2 r² parameters, rank r.
        train_s (`bool`):
            Whether to train the band's singular values too, r more parameters.
        alpha (`float`):
            What the change of the weight is multiplied by.
        target_modules (`Optional[Union[list[str], str]]`):
            The layers to adapt: names, endings of names, a regular expression, or 'all-linear'.
        exclude_modules (`Optional[Union[list[str], str]]`):
            The layers to leave out, given in the same ways.
        rank_pattern (`dict[str, int]`):
            Other values of r for layers whose name ends in, or matches, the key.
        alpha_pattern (`dict[str, float]`):
            Other values of alpha, in the same way.
        init_weights (`bool`):
            Begin without any change of the model. Otherwise with small random values, for tests.
        modules_to_save (`Optional[list[str]]`):
            Layers to train in full and save beside the adapter.
        layers_to_transform (`Optional[Union[list[int], int]]`):
            Adapt only the blocks of these numbers.
        layers_pattern (`Optional[Union[list[str], str]]`):
            The name of the list of blocks, where it is an unusual one.
        init_basis (`bool`):
            Whether to decompose the weights when the adapter is made. A saved adapter holds its band, so its
            configuration says no: loading decomposes nothing.
    """

    r: int = field(default=8, metadata={"help": "Singular directions of each weight: the width of the band."})
    band: int = field(default=0, metadata={"help": "Which slice of r directions, counted from 0."})
    side: Literal["top", "bottom"] = field(
        default="top", metadata={"help": "Where bands count from: the largest singular values, or the smallest."}
    )
    mode: Literal["additive", "rotational"] = field(
        default="additive", metadata={"help": "Shift the band's singular vectors (additive), or turn them."}
    )
    train_s: bool = field(default=False, metadata={"help": "Train the band's singular values too."})
    alpha: float = field(default=1.0, metadata={"help": "What the change of the weight is multiplied by."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "The layers to adapt: names, a regular expression, or 'all-linear'."}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "The layers to leave out: names or a regular expression."}
    )
    rank_pattern: dict[str, int] = field(
        default_factory=dict, metadata={"help": "Other values of r by name or regular expression."}
    )
    alpha_pattern: dict[str, float] = field(
        default_factory=dict, metadata={"help": "Other values of alpha by name or regular expression."}
    )
    init_weights: bool = field(
        default=True, metadata={"help": "Begin without any change; otherwise with small random values, for tests."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Layers to train in full and save beside the adapter."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Adapt only the blocks of these numbers."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "The name of the list of blocks, where it is an unusual one."}
    )
    init_basis: bool = field(
        default=True, metadata={"help": "Decompose the weights when the adapter is made; a saved adapter says no."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.SPECTRAL
        if self.mode not in ("additive", "rotational"):
            raise ValueError(f"`mode` is {self.mode!r}; it must be 'additive' or 'rotational'.")
        if self.side not in ("top", "bottom"):
            raise ValueError(f"`side` is {self.side!r}; it must be 'top' or 'bottom'.")
        if min([self.r, *self.rank_pattern.values()]) < 1 or self.band < 0:
            raise ValueError(f"`r` must be at least 1 and `band` at least 0; they are {self.r} and {self.band}.")
        if not all(math.isfinite(alpha) for alpha in (self.alpha, *self.alpha_pattern.values())):
            raise ValueError(f"`alpha` must be a finite number; it is {self.alpha}.")
        for name in ("target_modules", "exclude_modules"):
            if isinstance(value := getattr(self, name), list):
                setattr(self, name, set(value))

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"init_basis": False}
