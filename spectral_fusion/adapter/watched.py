"""Where in the picture words are attended to: a processor that takes notes and changes nothing."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

FINEST = 32 * 32  # finer layers see edges rather than subjects, and cost most


class AttentionWatch:
    """Maps of some subjects' words, gathered over layers, heads and steps."""

    def __init__(self, tokens: Sequence[Sequence[int]], sizes: Callable[[int], tuple[int, int]]) -> None:
        """
        Args:
            tokens: positions in the text of each subject's words.
            sizes: height and width of so many cells.
        """
        self.tokens, self.sizes = tokens, sizes
        self._sums: dict[int, Tensor] = {}
        self._counts: dict[int, int] = {}

    def add(self, probabilities: Tensor) -> None:
        """(heads, cells, tokens): what one layer attended to in one step."""
        mean = probabilities.float().mean(0)
        maps = torch.stack([mean[:, list(own)].sum(1) for own in self.tokens])
        cells = maps.shape[1]
        self._sums[cells] = self._sums.get(cells, 0) + maps
        self._counts[cells] = self._counts.get(cells, 0) + 1

    def mean(self) -> Tensor | None:
        """(subjects, height, width) of the finest layers that were seen, coarser ones spread; None if none was."""
        if not self._sums:
            return None
        finest = self.sizes(max(self._sums))
        total = torch.zeros(len(self.tokens), *finest)
        for cells, maps in self._sums.items():
            grid = (maps / self._counts[cells]).cpu().unflatten(1, self.sizes(cells))[None]
            total += F.interpolate(grid, size=finest, mode="bilinear", align_corners=False)[0]
        return total / len(self._sums)


class WatchedAttention:
    """A cross-attention processor round another one, which does the work."""

    def __init__(self, inner: Any, watch: AttentionWatch) -> None:
        self.inner, self.watch = inner, watch

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        if encoder_hidden_states is not None and hidden_states.shape[1] <= FINEST:
            query, key = attn.to_q(hidden_states[-1:]), attn.to_k(encoder_hidden_states[-1:])  # the last is conditional
            query, key = (attn.head_to_batch_dim(part) for part in (query, key))
            self.watch.add(attn.get_attention_scores(query, key))
        return self.inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
