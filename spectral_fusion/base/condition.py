"""What a denoiser is told: text embeddings, and whatever else a family adds to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Frame(NamedTuple):
    """Which part of which picture a training picture shows; XL is told so (Podell et al., 2023, section 2.2).

    original: (height, width) of the whole picture, in its own pixels.
    crop: (top, left) of what is shown, in pixels of the whole picture at the scale that it is shown at.
    target: (height, width) that it is shown at.
    """

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The six, in the order in which XL takes them."""
        return (*self.original, *self.crop, *self.target)


Generators = torch.Generator | list[torch.Generator] | None
"""One for all pictures of a batch, or one for each."""


@dataclass(frozen=True)
class Condition:
    """The conditions of n pictures.

    embeds: (n, tokens, width), what cross-attention reads.
    pooled: (n, width) or None, for families that have it.
    extra: more tensors whose first side is n, by the names that the family's denoiser gives them.
    """

    embeds: Tensor
    pooled: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.embeds)

    def to(self, device: torch.device) -> Condition:
        """The same on another device."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return Condition(self.embeds.to(device), pooled, {name: part.to(device) for name, part in self.extra.items()})

    def __getitem__(self, part: slice) -> Condition:
        pooled = None if self.pooled is None else self.pooled[part]
        return Condition(self.embeds[part], pooled, {name: tensor[part] for name, tensor in self.extra.items()})

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """The conditions of several batches as one; all have the same number of tokens."""
        first = parts[0]
        pooled = None if first.pooled is None else torch.cat([part.pooled for part in parts])  # type: ignore[misc]
        extra = {name: torch.cat([part.extra[name] for part in parts]) for name in first.extra}
        return Condition(torch.cat([part.embeds for part in parts]), pooled, extra)


@dataclass(frozen=True)
class Posterior:
    """An encoded picture: mean and standard deviation of its latents, (channels, height, width) or a batch of them.

    scale, shift: latents as the denoiser sees them are `(sample - shift) * scale`.
    """

    mean: Tensor
    std: Tensor
    scale: float = 1.0
    shift: float = 0.0

    def sample(self, noise: Tensor) -> Tensor:
        """Latents as the denoiser sees them. noise: of the mean's shape, standard normal."""
        latents = self.mean + self.std * noise
        return (latents - self.shift) * self.scale if self.shift else latents * self.scale


@dataclass(frozen=True)
class Start:
    """A picture that denoising begins from.

    latents: (n, channels, height, width), without noise.
    strength: the part of the steps that is done, from 0 to 1; 1 begins from pure noise.
    keep: (height, width) of 0 to 1: how much of each cell stays as it is; None: nothing.
    """

    latents: Tensor
    strength: float
    keep: Tensor | None = None


@dataclass(frozen=True)
class DenoisingStep:
    """Step `number` of `count`, counted from 1.

    given, latents: (n, channels, height, width) before and after the step.
    conditional, unconditional: the denoiser's answers to `given`; None for the second without guidance.
    """

    number: int
    count: int
    time: Tensor
    given: Tensor
    latents: Tensor
    conditional: Tensor
    unconditional: Tensor | None
