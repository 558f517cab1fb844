"""Pictures and texts in one row, as transformers with joint attention have them: which token of the picture reads which
text, and where a delta acts in such a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

LEAST = 1e-6  # a smaller share comes from rounding

Stream = Literal["image", "text", "joint"]


class PlacedText(NamedTuple):
    """One of the texts.

    Attributes:
        place: number of the place that reads it; None: what no place has reads it, the picture's own text.
        tokens: where it stands among the texts.
        cells: (n,) numbers of the picture's tokens that read it; None: all do.
        shares: (n,) how much of what each of them reads comes from it; None: all.
    """

    place: int | None
    tokens: slice
    cells: Tensor | None
    shares: Tensor | None


@dataclass(frozen=True, eq=False)
class JointSequence:
    """What stands in a row.

    Attributes:
        texts: those that somebody reads, in their order.
        shares: (places, tokens of the picture) of 0 to 1; a token's shares add up to at most 1.
        text_first: whether the texts come before the picture, in layers that see both.
        rotary: rotary positions of the picture's tokens and of the texts', where the model's own do not serve.
    """

    texts: tuple[PlacedText, ...]
    shares: Tensor
    text_first: bool
    rotary: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(
        cls, shares: Tensor, own: int, lengths: Sequence[int], *, padding: int = 0, text_first: bool = False
    ) -> JointSequence:
        """The row of one picture; a text that nobody reads is left out.

        Args:
            shares: (places, cells).
            own: tokens of the picture's own text.
            lengths: tokens of each place's text.
            padding: tokens that the model adds to the picture. They are in a place that is all of it, else in none.
        """
        shares = torch.where(shares < LEAST, 0, torch.where(shares > 1 - LEAST, 1, shares))
        beyond = (shares == 1).all(1).to(shares)[:, None].expand(-1, padding)
        shares = torch.cat([shares, beyond], 1)
        rest = 1 - shares.sum(0)
        everyone = torch.cat([torch.where(rest < LEAST, 0, rest)[None], shares])
        texts, start = [], 0
        for number, length in enumerate([own, *lengths]):
            cells = everyone[number].nonzero()[:, 0]
            if len(cells):
                part = everyone[number][cells]
                texts.append(
                    PlacedText(
                        number - 1 if number else None,
                        slice(start, start + length),
                        None if len(cells) == everyone.shape[1] else cells,
                        None if bool((part == 1).all()) else part,
                    )
                )
                start += length
        return cls(tuple(texts), shares, text_first)

    @property
    def is_plain(self) -> bool:
        """Whether there is one text, which everybody reads."""
        return len(self.texts) == 1 and self.texts[0].cells is None and self.texts[0].shares is None

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [text.tokens.stop - text.tokens.start for text in self.texts]

    @property
    def text_length(self) -> int:
        """Tokens of all texts."""
        return sum(self.lengths)

    def strengths(self, places: Sequence[int | None], stream: Stream) -> Tensor:
        """(deltas, tokens): how strongly a delta of each of these places acts; None: it acts everywhere.

        On a token of the picture by its place's share, on a text where it is that of its place.
        """
        image = torch.stack([torch.ones(self.shares.shape[1]) if p is None else self.shares[p] for p in places])
        if stream == "image":
            return image
        spoken = [[float(p is None or p == text.place) for text in self.texts] for p in places]
        text = torch.tensor(spoken).repeat_interleave(torch.tensor(self.lengths), dim=1)
        if stream == "text":
            return text
        return torch.cat([text, image] if self.text_first else [image, text], 1)

    def split(self, joint: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Picture and texts of a row."""
        text, total = self.text_length, joint.shape[dim]
        if self.text_first:
            return joint.narrow(dim, text, total - text), joint.narrow(dim, 0, text)
        return joint.narrow(dim, 0, total - text), joint.narrow(dim, total - text, text)

    def join(self, image: Tensor, text: Tensor, dim: int) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([text, image] if self.text_first else [image, text], dim)

    def on(self, device: torch.device) -> JointSequence:
        """The same with its numbers on a device."""
        texts = tuple(
            text._replace(cells=_to(text.cells, device), shares=_to(text.shares, device)) for text in self.texts
        )
        return JointSequence(texts, self.shares, self.text_first, self.rotary)


def _to(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)
