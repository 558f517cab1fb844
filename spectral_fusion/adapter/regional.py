"""Cross-attention in which each place reads its own text: a processor round another one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectral_fusion.adapter.placed import Placement


class RegionalAttention:
    """With shares s_i of n places, the output at a cell is `sum_i s_i out_i + (1 - sum_i s_i) out`.

    `out_i` is what the processor inside makes of region i's text, `out` of the picture's own. Each is computed for the
    cells that need it, so places that do not overlap cost one pass together. While a region's text passes, so do its
    deltas.
    """

    def __init__(self, inner: Any, texts: Sequence[Tensor], placement: Placement) -> None:
        """texts: (rows, tokens, width) of each region; as many rows as the picture's own text, or one for all."""
        self.inner, self.texts, self.placement = inner, texts, placement

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """hidden_states: (batch, positions, channels); the batch is that of the picture's own text, row by row."""
        batch, positions = hidden_states.shape[:2]
        shares = self.placement.masks.shares(*self.placement.masks.size(positions)).to(hidden_states)
        texts = [*(text.repeat_interleave(batch // len(text), 0) for text in self.texts), encoder_hidden_states]
        total = torch.zeros_like(hidden_states)
        for number, (share, text) in enumerate(zip([*shares, 1 - shares.sum(0)], texts, strict=True)):
            region = number if number < len(shares) else None
            cells = share.nonzero()[:, 0]
            if len(cells) == positions and bool((share == 1).all()):  # one place holds all
                with self.placement.passing(region):
                    return self.inner(attn, hidden_states, text, *args, **kwargs)
            if len(cells):
                with self.placement.passing(region, positions, cells):
                    part = self.inner(attn, hidden_states[:, cells], text, *args, **kwargs)
                total[:, cells] += part * share[cells, None]
        return total
