"""Regional prompts: inside a box, cross-attention reads the box's own prompt instead of the picture's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spectral_fusion.errors import InputError


class Box(NamedTuple):
    """A rectangle in parts of the picture, from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


def side_by_side(count: int) -> list[Box]:
    """Equal squares in the middle of the picture's height, from left to right; one is the whole picture."""
    half = 0.5 / count
    return [Box(i / count, 0.5 - half, (i + 1) / count, 0.5 + half) for i in range(count)]


@dataclass(frozen=True)
class Region:
    """A prompt for a part of the picture.

    Attributes:
        box: left, top, right, bottom as fractions of the picture: (0, 0, 0.5, 1) is its left half.

    Raises:
        InputError: the box is not inside the picture or has no area.
    """

    prompt: str
    box: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        if len(self.box) != 4:
            raise InputError(f"region {self.prompt!r} has {len(self.box)} numbers; give four: left,top,right,bottom")
        left, top, right, bottom = self.box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            shown = ",".join(f"{edge:g}" for edge in self.box)
            raise InputError(
                f"region {self.prompt!r} has the box {shown}, which is outside the picture or empty; "
                "give fractions with 0 <= left < right <= 1 and 0 <= top < bottom <= 1"
            )

    @classmethod
    def parse(cls, prompt: str, box: str) -> "Region":
        """From the text `0.05,0.2,0.5,0.95`. Raises InputError."""
        try:
            numbers = tuple(float(number) for number in box.split(","))
        except ValueError as error:
            raise InputError(f"region {prompt!r} has the box {box!r}; give four numbers: 0.05,0.2,0.5,0.95") from error
        return cls(prompt, numbers)  # type: ignore[arg-type]

    def mask(self, height: int, width: int) -> Tensor:
        """(height, width) of 0 and 1: the cells whose centre is in the box, and always the one at the box's centre."""
        left, top, right, bottom = self.box
        x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
        mask = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None, :]
        mask[int((top + bottom) / 2 * height), int((left + right) / 2 * width)] = True
        return mask.float()


class RegionalAttention:
    """A cross-attention processor round another one. Rows of the batch that are not conditional pass unchanged.

    With masks m_i of n boxes, the output at a position is sum_i m_i out_i / sum_i m_i, and the picture's own outside.
    """

    def __init__(self, inner: Any, embeddings: Tensor, masks: "Masks", guided: bool) -> None:
        self.inner, self.embeddings, self.masks, self.guided = inner, embeddings, masks, guided

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """hidden_states: (batch, positions, channels); under guidance the second half of the batch is conditional."""
        whole = self.inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        first = len(hidden_states) // 2 if self.guided else 0
        queries = hidden_states[first:]
        masks = self.masks.at(queries.shape[1]).to(whole)
        inside = torch.zeros_like(whole[first:])
        for embedding, mask in zip(self.embeddings, masks, strict=True):
            keys = embedding.expand(len(queries), -1, -1)
            inside += self.inner(attn, queries, keys, *args, **kwargs) * mask[:, None]
        cover = masks.sum(0)[:, None]
        mixed = torch.where(cover > 0, inside / cover.clamp(min=1), whole[first:])
        return torch.cat([whole[:first], mixed])


class Masks:
    """Masks of the regions at each resolution that cross-attention works at."""

    def __init__(self, regions: Sequence[Region], height: int, width: int) -> None:
        self.regions, self.height, self.width = regions, height, width
        self.cache: dict[int, Tensor] = {}

    def at(self, positions: int) -> Tensor:
        """(regions, positions), rows of the picture one after another; each level of the UNet halves, rounding up."""
        if positions not in self.cache:
            height, width = self.height, self.width
            while height * width > positions:
                height, width = (height + 1) // 2, (width + 1) // 2
            self.cache[positions] = torch.stack([region.mask(height, width).flatten() for region in self.regions])
        return self.cache[positions]


@contextmanager
def regional_prompts(
    unet: nn.Module,
    regions: Sequence[Region],
    embeddings: Tensor,
    *,
    height: int,
    width: int,
    guided: bool,
) -> Iterator[None]:
    """Let each region's prompt rule in its box while the context lasts; the UNet is as before afterwards.

    Args:
        unet: with cross-attention layers called `attn2`.
        embeddings: (regions, tokens, width), of the regions' prompts.
        height, width: of the latents.
        guided: classifier-free guidance is on: the first half of each batch is unconditional and stays as it is.
    """
    if not regions:
        yield
        return
    processors = dict(unet.attn_processors)
    masks = Masks(regions, height, width)
    unet.set_attn_processor(
        {
            name: RegionalAttention(processor, embeddings, masks, guided) if ".attn2." in name else processor
            for name, processor in processors.items()
        }
    )
    try:
        yield
    finally:
        unet.set_attn_processor(processors)
