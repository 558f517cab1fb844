"""Where in the picture words are attended to: a processor that takes notes and changes nothing."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_fusion.adapter.joint import given_of, one_stream, turned, two_streams

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


class WatchedStreams:
    """A processor of joint attention round another one, which does the work.

    Cells attend to one another and to the text; what counts here is how they share out what goes to the text.
    """

    def __init__(self, inner: Any, watch: AttentionWatch, *, text_first: bool) -> None:
        self.inner, self.watch, self.text_first = inner, watch, text_first

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> tuple[Tensor, Tensor]:
        last = hidden_states[-1:], encoder_hidden_states[-1:]  # the last is conditional
        image, text = two_streams(attn, *last, image_rotary_emb, self.text_first)
        self.watch.add(attended(image.query[0], text.key[0])[None])
        given = given_of(attention_mask=attention_mask, image_rotary_emb=image_rotary_emb)
        return self.inner(attn, hidden_states, encoder_hidden_states, **given)


class WatchedRow:
    """As `WatchedStreams`, where picture and text stand in a row."""

    def __init__(self, inner: Any, watch: AttentionWatch, image_length: int) -> None:
        """image_length: tokens of the picture with what it is padded with; they come first."""
        self.inner, self.watch, self.image_length = inner, watch, image_length

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        here = slice(None) if attention_mask is None else attention_mask[-1]
        joint = one_stream(attn, hidden_states[-1:, here])
        if freqs_cis is not None:
            joint = turned(joint, freqs_cis[-1, here])
        height, width = self.watch.sizes(self.image_length)
        query, key = joint.query[0, :, : height * width], joint.key[0, :, self.image_length :]
        self.watch.add(attended(query, key)[None])
        given = given_of(attention_mask=attention_mask, freqs_cis=freqs_cis)
        return self.inner(attn, hidden_states, **given)


def attended(query: Tensor, key: Tensor) -> Tensor:
    """(cells, tokens): the mean over heads of attention to these keys alone, (heads, tokens, channels); head by head,
    for all at once are large."""
    scale = query.shape[-1] ** -0.5
    total = query.new_zeros(query.shape[1], key.shape[1], dtype=torch.float32)
    for q, k in zip(query.float(), key.float(), strict=True):
        total += (scale * q @ k.T).softmax(-1)
    return total / len(query)


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
