"""Live deltas that act where they are wanted alone: `y += sum_i m_i * (x down_i^T) up_i^T`, by forward hooks.

A layer that sees the picture's cells multiplies each delta by its place's mask. A layer that sees text (`to_k`, `to_v`
of cross-attention, a text encoder) lets a delta act while its own region's prompt passes. A layer that sees neither, as
the projection of the time step does, serves the whole picture at once: a delta acts there if its place is all of it.
Where texts stand in a row with the picture's cells, as in joint attention, a delta acts on the text of its own region.

All deltas of a layer go through one product each way, whatever their number.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_fusion.adapter.masks import Masks
from spectral_fusion.adapter.sequence import JointSequence, Stream
from spectral_fusion.spectral import Factors

Kind = Literal["image", "text", "joint", "whole"]
"""What a layer sees: cells of the picture, text, both in a row, or neither."""


@dataclass(frozen=True, eq=False)
class PlacedDelta:
    """What one concept changes, and where.

    Attributes:
        layers: name of a layer -> delta.
        weight: what the deltas are multiplied by.
        place: number of its place and region; None: everywhere.
        start, end: the part of the denoising in which it acts, from 0 to 1.
    """

    layers: Mapping[str, Factors]
    weight: float = 1.0
    place: int | None = None
    start: float = 0.0
    end: float = 1.0


class Placement:
    """Which deltas act at the moment, and on what: hooks ask it."""

    def __init__(self, deltas: Sequence[PlacedDelta], masks: Masks) -> None:
        self.deltas, self.masks = deltas, masks
        self.advance(0.0)
        self._region: int | None = None
        self.sequence: JointSequence | None = None
        """What stands in a row with the picture's cells at the moment."""
        self._cache: dict[Any, Tensor] = {}

    @contextmanager
    def passing(self, region: int | None) -> Iterator[None]:
        """While it lasts, this region's text passes; None: the picture's own."""
        before, self._region = self._region, region
        try:
            yield
        finally:
            self._region = before

    @contextmanager
    def in_a_row(self, sequence: JointSequence) -> Iterator[None]:
        """While it lasts, these texts pass together, with the picture's cells."""
        before, self.sequence = self.sequence, sequence
        try:
            yield
        finally:
            self.sequence = before

    def advance(self, progress: float) -> None:
        """So much of the denoising, from 0 to 1, is done: let each delta act in its own part of it."""
        self.acting = tuple(d.start <= progress and (progress < d.end or d.end >= 1) for d in self.deltas)

    def speaking(self, owners: Sequence[int]) -> list[int]:
        """Of these deltas the numbers of those that act on the text that passes."""
        acting = self.acting
        return [number for number in owners if acting[number] and self.deltas[number].place in (None, self._region)]

    def everywhere(self, owners: Sequence[int]) -> list[int]:
        """Of these deltas the numbers of those whose place is the whole picture."""
        acting, shares = self.acting, self._by_delta(self.masks.height, self.masks.width)
        return [number for number in owners if acting[number] and bool((shares[number] == 1).all())]

    def strengths(self, rows: tuple[int, ...], height: int, width: int, like: Tensor) -> Tensor:
        """(rows, cells): how strongly each row, of the delta with this number, acts at each cell."""
        acting = self.acting
        key = (rows, height, width, acting, like.device, like.dtype)
        if key not in self._cache:
            shares = self._by_delta(height, width) * torch.tensor(acting)[:, None]
            self._cache[key] = shares[list(rows)].to(like)
        return self._cache[key]

    def strengths_in_a_row(self, rows: tuple[int, ...], stream: Stream, like: Tensor) -> Tensor:
        """(rows, tokens) of the row that passes: how strongly each row, of the delta with this number, acts."""
        assert self.sequence is not None
        key = (rows, stream, self.sequence, self.acting, like.device, like.dtype)
        if key not in self._cache:
            strengths = self.sequence.strengths([delta.place for delta in self.deltas], stream)
            self._cache[key] = (strengths * torch.tensor(self.acting)[:, None])[list(rows)].to(like)
        return self._cache[key]

    def _by_delta(self, height: int, width: int) -> Tensor:
        """(deltas, cells)."""
        shares = self.masks.shares(height, width)
        ones = torch.ones(height * width)
        return torch.stack([ones if d.place is None else shares[d.place] for d in self.deltas])


@contextmanager
def placed(
    layers: Mapping[str, nn.Module], kinds: Mapping[str, Kind], deltas: Sequence[PlacedDelta], masks: Masks
) -> Iterator[Placement]:
    """Let deltas act on plain linear and convolution layers while the context lasts; the layers stay as they are.

    Args:
        layers: by name; at least those that the deltas change.
        kinds: what each of these layers sees.
    """
    placement = Placement(deltas, masks)
    names = dict.fromkeys(name for delta in deltas for name in delta.layers)
    handles = []
    try:
        for name in names:
            owners = [number for number, delta in enumerate(deltas) if name in delta.layers]
            parts = [deltas[number].layers[name] for number in owners]
            hook = _Hook(placement, layers[name], kinds[name], owners, parts)
            handles.append(layers[name].register_forward_hook(hook))
        yield placement
    finally:
        for handle in handles:
            handle.remove()


class _Hook:
    """The deltas of one layer, side by side; (R, in) and (out, R)."""

    def __init__(
        self, placement: Placement, layer: nn.Module, kind: Kind, owners: list[int], parts: list[Factors]
    ) -> None:
        self.placement, self.kind, self.owners = placement, kind, owners
        self.placeless = all(placement.deltas[number].place is None for number in owners)
        weights = [placement.deltas[number].weight for number in owners]
        self.down = torch.cat([part.down for part in parts])
        self.up = torch.cat([part.up * w for part, w in zip(parts, weights, strict=True)], dim=1)
        self.rows = tuple(number for number, part in zip(owners, parts, strict=True) for _ in range(len(part.down)))

    @torch.no_grad()
    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        x = inputs[0].to(y.device, y.dtype)
        # Not as the weight: an offloaded one lies elsewhere in between, and a quantised one is of no type to add in.
        self.up, self.down = self.up.to(y), self.down.to(y)
        in_parts = self.kind == "image" or (self.kind != "whole" and self.placement.sequence is not None)
        if in_parts and not self.placeless:
            return self._masked(layer, x, y)
        chosen = (self.placement.everywhere if self.kind == "whole" else self.placement.speaking)(self.owners)
        if not chosen:
            return y
        if len(chosen) == len(self.owners):
            return _add(layer, x, y, self.up, self.down, None)
        keep = torch.tensor([row in chosen for row in self.rows], device=y.device)
        return _add(layer, x, y, self.up[:, keep], self.down[keep], None)

    def _masked(self, layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(layer, nn.Conv2d):
            height, width = y.shape[2:]
            strengths = self.placement.strengths(self.rows, height, width, y).view(-1, height, width)
        elif self.placement.sequence is not None and self.kind != "whole":
            strengths = self.placement.strengths_in_a_row(self.rows, self.kind, y).T
        else:
            strengths = self.placement.strengths(self.rows, *self.placement.masks.size(x.shape[1]), y).T
        return _add(layer, x, y, self.up, self.down, strengths)


def _add(layer: nn.Module, x: Tensor, y: Tensor, up: Tensor, down: Tensor, strengths: Tensor | None) -> Tensor:
    """`y` plus what `up diag(strengths) down` makes of `x`.

    strengths: (tokens, R) for a linear layer, (R, height, width) for a convolution; None: 1.
    """
    if isinstance(layer, nn.Conv2d):
        h = layer._conv_forward(x, down.unflatten(1, layer.weight.shape[1:]), None)  # keeps stride and padding mode
        return y + F.conv2d(h if strengths is None else h * strengths, up[:, :, None, None])
    h = F.linear(x, down)
    if strengths is not None:
        h = h * strengths
    return torch.addmm(y.reshape(-1, y.shape[-1]), h.reshape(-1, h.shape[-1]), up.T).view(y.shape)
