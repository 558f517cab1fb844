"""Regions on transformers with joint attention: their texts stand in a row with the picture's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spectral_fusion.adapter.joint import Rotary
from spectral_fusion.adapter.placed import Kind, Placement
from spectral_fusion.adapter.sequence import JointSequence
from spectral_fusion.base.condition import Condition

# Layers by what they see; of modulations both streams' are of the whole picture.
WHOLE = re.compile(r"(^|\.)(time_\w+|t_embedder|norm\w*\.linear|\w*modulation\w*)(\.|$)")
TEXT = re.compile(r"(^|\.)(context_embedder|add_[qkv]_proj|to_add_out|ff_context|cap_embedder|context_refiner)(\.|$)")


def layer_kind(path: str, joint_blocks: Sequence[str]) -> Kind:
    """What a layer of a transformer sees.

    Args:
        joint_blocks: how the paths of layers begin that see picture and text in a row.
    """
    if WHOLE.search(path):
        return "whole"
    if path.startswith(tuple(joint_blocks)):
        return "joint"
    return "text" if TEXT.search(path) else "image"


class RegionTexts:
    """The texts of regions while they are at work."""

    def __init__(self, texts: Sequence[Condition], placement: Placement, *, half: bool) -> None:
        self.texts, self.placement, self.half = texts, placement, half
        self._known: dict[tuple[int, ...], JointSequence] = {}

    def sequence(
        self,
        size: tuple[int, int],
        own: int,
        lengths: Sequence[int],
        *,
        padding: int = 0,
        text_first: bool,
        device: torch.device,
        rotary: Callable[[JointSequence], Rotary] | None = None,
    ) -> JointSequence:
        """Who reads what in a picture of (height, width) tokens; see `JointSequence.of`.

        Args:
            rotary: the positions of such a row, where the model's own do not serve.
        """
        case = (*size, own, *lengths, padding)
        if case not in self._known:
            shares = self.placement.masks.shares(*size)
            sequence = JointSequence.of(shares, own, lengths, padding=padding, text_first=text_first)
            if rotary is not None:
                sequence = replace(sequence, rotary=rotary(sequence))
            self._known[case] = sequence.on(device)
        return self._known[case]

    def joined(self, own: Tensor, sequence: JointSequence) -> Tensor:
        """(batch, tokens, width): the picture's own text and those of regions, those that somebody reads."""
        texts = [own if t.place is None else for_rows(self.texts[t.place].embeds, len(own)) for t in sequence.texts]
        return torch.cat([text.to(own) for text in texts], 1)


def for_rows(text: Tensor, rows: int) -> Tensor:
    """The rows of a text for a batch of so many.

    Fewer serve as many neighbours each; of more the last count, for denoisers that take no unconditional half.
    """
    text = text[-rows:]
    return text.repeat_interleave(rows // len(text), 0)


def word_tokens(tokenizer: Any, text: str, words: Sequence[str], length: int) -> list[int]:
    """Numbers of the tokens that spell one of these words, among the first `length` of a text."""
    encoded = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_offsets_mapping=True)
    spans = [found.span() for word in words for found in re.finditer(re.escape(word), text)]
    return [
        number
        for number, (start, stop) in enumerate(encoded["offset_mapping"])
        if any(max(start, first) < min(stop, last) for first, last in spans)
    ]


def as_asked(tokenizer: Any, prompt: str, **settings: Any) -> str:
    """A prompt as a language model's chat template wraps it."""
    message = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, **settings)
