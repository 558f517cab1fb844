"""Joint attention in which each place reads its own text: processors for diffusers' transformers.

A token of the picture attends to the whole picture and to its own place's text; a text attends to itself and to the
tokens that read it. That is attention under a mask, computed without one: place by place, each with the keys that it
sees, so that for the picture it costs what plain attention costs, whatever the number of places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_fusion.adapter.placed import Kind, Placement
from spectral_fusion.adapter.sequence import JointSequence

Rotary = tuple[Tensor, Tensor]


class Heads(NamedTuple):
    """Queries, keys and values, (batch, heads, tokens, channels of a head)."""

    query: Tensor
    key: Tensor
    value: Tensor

    def at(self, tokens: Tensor | slice | None) -> Heads:
        """Those of some tokens; None: of all."""
        return self if tokens is None else Heads(*(part[:, :, tokens] for part in self))


def attend_in_places(image: Heads, text: Heads, sequence: JointSequence) -> tuple[Tensor, Tensor]:
    """What the picture's tokens and the texts read, (batch, heads, tokens, channels) each.

    With shares s_i of the places a token of the picture reads `sum_i s_i out_i`, and a text reads that token as if it
    were there s_i times: its logit plus log s_i.
    """
    if sequence.is_plain:
        joint = Heads(*(sequence.join(*pair, 2) for pair in zip(image, text, strict=True)))
        return sequence.split(F.scaled_dot_product_attention(*joint), 2)
    read = torch.zeros_like(image.query)
    spoken = []
    for part in sequence.texts:
        own, seen = text.at(part.tokens), image.at(part.cells)
        keys, values = sequence.join(image.key, own.key, 2), sequence.join(image.value, own.value, 2)
        answer = F.scaled_dot_product_attention(seen.query, keys, values)
        bias = None
        if part.shares is not None:
            shares = part.shares.to(answer)
            answer = answer * shares[:, None]
            bias = sequence.join(shares.log(), shares.new_zeros(own.key.shape[2]), 0)[None]
        if part.cells is None:
            read += answer
        else:
            read[:, :, part.cells] += answer
            keys, values = sequence.join(seen.key, own.key, 2), sequence.join(seen.value, own.value, 2)
        spoken.append(F.scaled_dot_product_attention(own.query, keys, values, attn_mask=bias))
    return read, torch.cat(spoken, 2)


class Placed:
    """While no places are in the picture, the processor that one of these stands for does the work."""

    def __init__(self, inner: Any, placement: Placement) -> None:
        self.inner, self.placement = inner, placement


class TwoStreams(Placed):
    """Attention whose pictures and texts have projections of their own: of SD 3, and FLUX's first blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> tuple[Tensor, Tensor]:
        sequence = self.placement.sequence
        if sequence is None:
            given = given_of(attention_mask=attention_mask, image_rotary_emb=image_rotary_emb)
            return self.inner(attn, hidden_states, encoder_hidden_states, **given)
        image, text = two_streams(attn, hidden_states, encoder_hidden_states, image_rotary_emb, sequence.text_first)
        read, spoken = (merged(part) for part in attend_in_places(image, text, sequence))
        if not getattr(attn, "context_pre_only", None):
            spoken = attn.to_add_out(spoken)
        return attn.to_out[1](attn.to_out[0](read)), spoken


class OneStream(Placed):
    """Attention that sees pictures and texts in a row: of FLUX.1's last blocks, and Z-Image."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        sequence = self.placement.sequence
        if sequence is None:
            given = given_of(attention_mask=attention_mask, image_rotary_emb=image_rotary_emb, freqs_cis=freqs_cis)
            return self.inner(attn, hidden_states, **given)
        if sequence.rotary is not None:
            freqs_cis = sequence.join(*sequence.rotary, 0)
        joint = turned(one_stream(attn, hidden_states), image_rotary_emb if freqs_cis is None else freqs_cis)
        read = in_a_row(joint, sequence)
        for layer in getattr(attn, "to_out", ()):
            read = layer(read)
        return read


class ParallelStream(Placed):
    """Attention beside a feed-forward layer, in one projection: of FLUX.2's last blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> Tensor:
        sequence = self.placement.sequence
        if sequence is None:
            return self.inner(attn, hidden_states, attention_mask, image_rotary_emb)
        both = attn.to_qkv_mlp_proj(hidden_states)
        *parts, beside = both.split([attn.inner_dim] * 3 + [attn.mlp_hidden_dim * attn.mlp_mult_factor], dim=-1)
        joint = normed(attn, parts, (attn.norm_q, attn.norm_k))
        read = in_a_row(turned(joint, image_rotary_emb), sequence)
        return attn.to_out(torch.cat([read, attn.mlp_act_fn(beside)], -1))


class TextsAlone(Placed):
    """Attention of texts that no picture is beside: each attends to itself."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        sequence = self.placement.sequence
        if sequence is None:
            return self.inner(attn, hidden_states, **given_of(attention_mask=attention_mask, freqs_cis=freqs_cis))
        joint = turned(one_stream(attn, hidden_states), freqs_cis if sequence.rotary is None else sequence.rotary[1])
        parts = [F.scaled_dot_product_attention(*joint.at(text.tokens)) for text in sequence.texts]
        return attn.to_out[1](attn.to_out[0](merged(torch.cat(parts, 2))))


class PictureAlone(Placed):
    """Attention of pictures that no text is beside: as it is, with the row's own positions."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        sequence = self.placement.sequence
        if sequence is not None and sequence.rotary is not None:
            freqs_cis = sequence.rotary[0][None]
        return self.inner(attn, hidden_states, **given_of(attention_mask=attention_mask, freqs_cis=freqs_cis))


def processor_for(attn: Any, kind: Kind, placement: Placement) -> Placed:
    """What splits an attention into places.

    Args:
        kind: what its layers see; those of two streams have layers of two kinds.
    """
    if getattr(attn, "add_q_proj", None) is not None:
        return TwoStreams(attn.processor, placement)
    if hasattr(attn, "to_qkv_mlp_proj"):
        return ParallelStream(attn.processor, placement)
    alone: dict[Kind, type[Placed]] = {"joint": OneStream, "text": TextsAlone, "image": PictureAlone}
    return alone[kind](attn.processor, placement)


def given_of(**arguments: Any) -> dict[str, Any]:
    """The arguments that are not None: processors differ in what they take."""
    return {name: value for name, value in arguments.items() if value is not None}


def in_a_row(joint: Heads, sequence: JointSequence) -> Tensor:
    """(batch, tokens, channels): what a row of picture and texts reads, in its order."""
    image, text = (Heads(*parts) for parts in zip(*(sequence.split(part, 2) for part in joint), strict=True))
    return merged(sequence.join(*attend_in_places(image, text, sequence), 2))


def two_streams(
    attn: Any, image: Tensor, text: Tensor | None, rotary: Rotary | None, text_first: bool
) -> tuple[Heads, Heads]:
    """The heads of the picture, (batch, tokens, channels), and of the texts."""
    seen = heads(attn, image, ("to_q", "to_k", "to_v"), (attn.norm_q, attn.norm_k))
    told = heads(attn, text, ("add_q_proj", "add_k_proj", "add_v_proj"), (attn.norm_added_q, attn.norm_added_k))
    if rotary is None:
        return seen, told
    count = (told if text_first else seen).query.shape[2]
    first, second = (tuple(part[:count] for part in rotary), tuple(part[count:] for part in rotary))
    of_image, of_text = (second, first) if text_first else (first, second)
    return turned(seen, of_image), turned(told, of_text)


def heads(attn: Any, x: Tensor | None, layers: tuple[str, str, str], norms: tuple[Any, Any]) -> Heads:
    """(batch, tokens, channels) through three layers and two norms."""
    return normed(attn, [getattr(attn, name)(x) for name in layers], norms)


def one_stream(attn: Any, joint: Tensor) -> Heads:
    """The heads of a row, (batch, tokens, channels)."""
    return heads(attn, joint, ("to_q", "to_k", "to_v"), (attn.norm_q, attn.norm_k))


def normed(attn: Any, parts: Sequence[Tensor], norms: tuple[Any, Any]) -> Heads:
    """Queries, keys and values, (batch, tokens, channels) each, as heads."""
    query, key, value = (part.unflatten(2, (attn.heads, -1)).transpose(1, 2) for part in parts)
    query, key = (part if norm is None else norm(part) for part, norm in zip((query, key), norms, strict=True))
    return Heads(query, key, value)


def turned(parts: Heads, rotary: Any) -> Heads:
    """With queries and keys turned by their rotary positions.

    Args:
        rotary: (tokens, channels) of cosines and of sines, or (tokens, channels / 2) of complex numbers.
    """
    if isinstance(rotary, tuple):
        query, key = (apply_rotary_emb(part, rotary, sequence_dim=2) for part in parts[:2])
        return Heads(query, key, parts.value)
    pairs = (torch.view_as_complex(part.float().unflatten(-1, (-1, 2))) for part in parts[:2])
    query, key = (torch.view_as_real(pair * rotary).flatten(-2).to(parts.value) for pair in pairs)
    return Heads(query, key, parts.value)


def merged(x: Tensor) -> Tensor:
    """(batch, heads, tokens, channels) as (batch, tokens, all channels)."""
    return x.transpose(1, 2).flatten(2)


@contextmanager
def replaced_processors(model: nn.Module, make: Callable[[str, Any], Any]) -> Iterator[None]:
    """Within the `with` block a model's attention has other processors.

    Args:
        make: of an attention's name and module; None leaves the one that it has.
    """
    found = {name: attn for name, attn in model.named_modules() if hasattr(attn, "set_processor")}
    before = {name: attn.processor for name, attn in found.items() if hasattr(attn, "processor")}
    try:
        for name in before:
            other = make(name, found[name])
            if other is not None:
                found[name].set_processor(other)
        yield
    finally:
        for name, own in before.items():
            found[name].set_processor(own)
