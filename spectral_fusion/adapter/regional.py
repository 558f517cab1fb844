"""Cross-attention in which each place reads its own text: a processor for diffusers' `Attention`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_fusion.adapter.placed import Placement
from spectral_fusion.errors import InputError

SPECIAL = ("norm_q", "norm_k", "norm_cross", "group_norm", "spatial_norm", "add_k_proj")


class RegionalAttention:
    """With shares s_i of n places, a cell reads `sum_i s_i out_i + (1 - sum_i s_i) out`.

    `out_i` is what attention to region i's text gives, `out` to the picture's own; each is computed for the cells that
    need it, so places that do not overlap cost one pass together. While a region's text passes, so do its deltas. Texts
    stay the same from step to step, and so do their keys and values: these are computed once.

    Mixing comes before the output layer, which is linear, so that this is the same as mixing after it.
    """

    def __init__(self, texts: Sequence[Tensor], placement: Placement, *, half: bool = False) -> None:
        """
        Args:
            texts: (rows, tokens, width) of each region; as many rows as the picture's own text, or a divisor of them.
            half: the first half of each batch reads the picture's own text everywhere; `texts` are of the second.
        """
        self.texts, self.placement, self.half = texts, placement, half
        self._known: dict[tuple[int | None, tuple[bool, ...]], tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """hidden_states: (batch, positions, channels); the batch is that of the picture's own text, row by row."""
        if not can_read(attn) or attention_mask is not None or encoder_hidden_states is None:
            raise InputError("the attention of this base cannot be split into regions; generate without regions")
        shares = self.placement.masks.shares(*self.placement.masks.size(hidden_states.shape[1])).to(hidden_states)
        query = _heads(attn, attn.to_q(hidden_states))
        first = len(query) // 2 if self.half else 0
        own = self._keys(attn, None, encoder_hidden_states)
        total = torch.zeros_like(query)
        if first:
            total[:first] = _attend(attn, query[:first], *(part[:first] for part in own))
        for number, share in enumerate([*shares, 1 - shares.sum(0)]):
            cells = share.nonzero()[:, 0]
            if len(cells):
                last = number == len(shares)
                read = tuple(part[first:] for part in own) if last else self._keys(attn, number, self.texts[number])
                total[first:, :, cells] += _attend(attn, query[first:, :, cells], *read) * share[cells, None]
        out = attn.to_out[0](total.transpose(1, 2).flatten(2))
        return attn.to_out[1](out) / attn.rescale_output_factor

    def _keys(self, attn: Any, region: int | None, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a text, (rows, heads, tokens, channels)."""
        case = (region, self.placement.acting)
        if case not in self._known or self._known[case][0] is not text:
            with self.placement.passing(region):
                key, value = _heads(attn, attn.to_k(text)), _heads(attn, attn.to_v(text))
            self._known = {other: kept for other, kept in self._known.items() if other[1] == case[1]}
            self._known[case] = text, key, value
        return self._known[case][1:]


@contextmanager
def replaced_attention(unet: nn.Module, make: Callable[[Any], Any], layers: str = ".attn2.") -> Iterator[None]:
    """Within the `with` block attention has other processors, made from its own.

    Args:
        layers: what the names of those that change hold: cross-attention by default; all where it is empty.
    """
    before = unet.attn_processors
    unet.set_attn_processor({name: make(own) if layers in name else own for name, own in before.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(dict(before))  # it empties what it is given


def can_read(attn: Any) -> bool:
    """Whether an attention is the plain one of Stable Diffusion, 1.x to XL, which this processor computes."""
    special = any(getattr(attn, name, None) is not None for name in SPECIAL)
    return attn.is_cross_attention and not attn.residual_connection and not special


def _attend(attn: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(batch, heads, cells, channels); keys and values of fewer rows serve as many neighbouring rows of the batch."""
    rows = (-1, len(query) // len(key), -1, -1, -1)
    key, value = (part[:, None].expand(rows).flatten(0, 1) for part in (key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=attn.scale)


def _heads(attn: Any, x: Tensor) -> Tensor:
    """(batch, tokens, channels) as (batch, heads, tokens, channels of a head)."""
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)
