"""Settings of one spectral adapter."""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from peft import PeftConfig

from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band, Mode, Side, Triplets


class _MethodName(str):
    """Stands in for a member of PEFT's closed `PeftType` enum: a string with a `value`."""

    @property
    def value(self) -> str:
        return str(self)


SPECTRAL = _MethodName("SPECTRAL")


@dataclass
class SpectralConfig(PeftConfig):
    """Settings of one spectral adapter, for `get_peft_model` and `add_adapter`.

    Raises:
        InputError: a setting is out of its range.
    """

    r: int = field(default=8, metadata={"help": "Singular directions a layer, the width of the band."})
    band: int = field(default=0, metadata={"help": "Which slice of directions: number `band` of width r, from 0."})
    side: Side = field(
        default="top",
        metadata={"help": "Where bands count from: top, the largest singular values, or bottom, the smallest."},
    )
    mode: Mode = field(
        default="additive",
        metadata={"help": "additive shifts the singular vectors (rank 2r); rotational turns them (rank r)."},
    )
    train_s: bool = field(default=False, metadata={"help": "Train the band's singular values too."})
    alpha: float = field(default=1.0, metadata={"help": "Strength: what the delta is multiplied by."})
    target_modules: list[str] | set[str] | str | None = field(
        default=None,
        metadata={
            "help": "Names or endings of the linear and convolution layers to adapt, a regular expression, or "
            "'all-linear'. None: the attention projections, where the architecture is known."
        },
    )
    exclude_modules: list[str] | set[str] | str | None = field(
        default=None, metadata={"help": "Names or endings, or a regular expression, of layers to leave out."}
    )
    rank_pattern: dict[str, int] = field(
        default_factory=dict, metadata={"help": "Other ranks for layers whose name ends in, or matches, the key."}
    )
    alpha_pattern: dict[str, float] = field(
        default_factory=dict, metadata={"help": "Other strengths for layers whose name ends in, or matches, the key."}
    )
    init_weights: bool = field(
        default=True,
        metadata={"help": "Begin without any change. False: with small random values, as tests of the method want."},
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Layers to train in full and save with the adapter, such as a task's head."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Only blocks of these numbers; needs target_modules as a list."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list of blocks, where it is an unusual one."}
    )
    init_basis: bool | Mapping[str, Triplets] = field(
        default=True,
        metadata={
            "help": "True: decompose the weights as they are. False: allocate zeros for a file that is loaded next. "
            "A mapping from layer names to triplets, as `spectral.decompose` makes it: take these. A model that was "
            "cast to bfloat16 needs the ones of the weights before."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = SPECTRAL
        if self.mode not in get_args(Mode):
            raise InputError(f"mode {self.mode!r} is unknown; use one of {', '.join(get_args(Mode))}")
        for rank in (self.r, *self.rank_pattern.values()):
            Band(self.band, rank, self.side)
        for alpha in (self.alpha, *self.alpha_pattern.values()):
            if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
                raise InputError(f"alpha {alpha!r} is no strength; give a finite number, 1 for the delta as trained")
        for name in ("target_modules", "exclude_modules"):
            if isinstance(value := getattr(self, name), list):
                setattr(self, name, set(value))  # the container that PEFT's own methods expect

    def to_dict(self) -> dict[str, Any]:
        """The settings as saved beside the tensors, which hold the basis: loading needs no decomposition."""
        bare = copy.copy(self)
        bare.init_basis = False
        return asdict(bare)
