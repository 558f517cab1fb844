"""Control pictures: a ControlNet reads one beside the noisy latents, and adds to what the UNet has on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from spectral_fusion.errors import InputError
from spectral_fusion.reading.modes import BLACK, as_rgb

SIDES = ("cross_attention_dim", "in_channels", "block_out_channels", "down_block_types", "layers_per_block")
"""Settings in which a ControlNet and the UNet that it was made for agree."""
LARGEST_SCALE = 10


@dataclass(frozen=True)
class ControlNet:
    """A loaded ControlNet that fits its base.

    name: as pictures record it, of a folder the last part.
    """

    name: str
    model: nn.Module


@dataclass(frozen=True)
class Control:
    """A picture that guides the denoising.

    Attributes:
        image: what the ControlNet reads, such as edges, a depth map or a pose.
        scale: how strongly it guides; 0: not at all.
        start, end: the part of the steps in which it does, from 0 to 1.

    Raises:
        InputError: a number that cannot be used.
    """

    net: ControlNet
    image: Image.Image = field(repr=False)
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_control(self.scale, self.start, self.end)

    def acts(self, step: int, steps: int) -> bool:
        """Whether it guides step `step` of `steps`, counted from 1; the whole step lies between `start` and `end`."""
        return self.scale != 0 and (step - 1) / steps >= self.start and step / steps <= self.end

    @cached_property
    def pixels(self) -> Tensor:
        """(1, 3, height, width) in [0, 1]."""
        return torch.from_numpy(np.array(as_rgb(self.image, BLACK))).float().movedim(2, 0)[None] / 255

    def residuals(self, noisy: Tensor, times: Tensor, embeds: Tensor, **added: Any) -> dict[str, Any]:
        """What the UNet is to add, by the names of its arguments, where it is given the same."""
        pixels = self.pixels.to(noisy.device, noisy.dtype).expand(len(noisy), -1, -1, -1)
        down, middle = self.net.model(
            noisy,
            times,
            embeds,
            controlnet_cond=pixels,
            conditioning_scale=self.scale,
            return_dict=False,
            **added,
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def check_control(scale: float, start: float, end: float) -> None:
    """Raises InputError: a number that cannot be used."""
    if not 0 <= scale <= LARGEST_SCALE:
        raise InputError(f"the control picture's scale is {scale:g}; give a number from 0 (off) to {LARGEST_SCALE}")
    if not 0 <= start < end <= 1:
        raise InputError(f"the control picture guides from {start:g} to {end:g}; give two parts of the steps")


def check_fits(config: Mapping[str, Any], name: str, unet: Mapping[str, Any], pixels: int) -> None:
    """Whether a ControlNet was made for UNets like this one, by the configurations of both.

    Args:
        pixels: that a latent of the base is wide.

    Raises:
        InputError: it was not, or works in a way that is not done here.
    """
    kind = config.get("_class_name")
    if kind != "ControlNetModel":
        raise InputError(f"{name} is a {kind}; give a ControlNetModel of the base's family")
    for side in SIDES:
        theirs, ours = _plain(config.get(side)), _plain(unet.get(side))
        if theirs is not None and theirs != ours:
            raise InputError(
                f"ControlNet {name} is for bases of another family: its {side} is {theirs}, the base's {ours}; give "
                "one that was trained for this kind of base"
            )
    reads = 2 ** (len(config.get("conditioning_embedding_out_channels") or (0,) * 4) - 1)
    if reads != pixels:
        raise InputError(
            f"ControlNet {name} reads {reads} pixels a latent, the base has {pixels}; give one of its kind"
        )
    if config.get("global_pool_conditions"):
        raise InputError(f"ControlNet {name} reads no places of the picture (shuffle), which is not done here")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
