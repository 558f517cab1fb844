"""Z-Image: one stream of picture and text tokens, told by a language model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ZImagePipeline
from torch import Tensor

from spectral_fusion.adapter.joint import Rotary
from spectral_fusion.adapter.sequence import JointSequence
from spectral_fusion.adapter.watched import AttentionWatch, WatchedRow
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.flow import FlowTransformer
from spectral_fusion.base.joint import RegionTexts, as_asked, for_rows, word_tokens
from spectral_fusion.base.layers import dtype_of
from spectral_fusion.errors import InputError

MAX_WORDS = 512
STEP = 32  # the model pads picture and text to multiples of this


class ZImage(FlowTransformer):
    """Z-Image, base and turbo. It reads prompts of different lengths, so that a condition carries a mask."""

    family = "z-image"
    pipeline_class = "ZImagePipeline"
    joint_blocks = ("layers.", "all_final_layer.")
    text_first = False
    pipeline: ZImagePipeline

    @property
    def size(self) -> int:
        return self.vae.config.sample_size

    @torch.no_grad()
    def condition(self, prompts: Sequence[str], *, weighted: bool = False) -> Condition:
        if weighted:
            prompts = self.check_prompts(prompts)
        found, _ = self.pipeline.encode_prompt(list(prompts), device=self.device, do_classifier_free_guidance=False)
        embeds = found[0].new_zeros(len(found), MAX_WORDS, found[0].shape[1])
        mask = torch.zeros(len(found), MAX_WORDS, dtype=torch.bool, device=embeds.device)
        for place, words in enumerate(found):
            embeds[place, : len(words)] = words
            mask[place, : len(words)] = True
        return Condition(embeds, extra={"mask": mask})

    def word_positions(self, prompt: str, words: Sequence[str]) -> list[int]:
        (text,) = self.check_prompts([prompt])
        tokenizer = self.pipeline.tokenizer
        return word_tokens(tokenizer, as_asked(tokenizer, text, enable_thinking=True), words, MAX_WORDS)

    def watched(self, name: str, attn: Any, watch: AttentionWatch) -> Any | None:
        cells = math.prod(watch.sizes(0))
        return WatchedRow(attn.processor, watch, cells + -cells % STEP) if name.startswith("layers.") else None

    def answer_in_places(self, noisy: Tensor, times: Tensor, condition: Condition, regions: RegionTexts) -> Tensor:
        """Row by row, for rows have texts of different lengths; each text is padded as it is alone."""
        size, rows = self.token_grid(noisy.shape[-2], noisy.shape[-1]), len(noisy)
        of_rows = [told(text, for_rows(torch.arange(len(text)), rows)) for text in regions.texts]
        answers = []
        for row, own in enumerate(told(condition, torch.arange(rows))):
            texts = [own, *(text[row] for text in of_rows)]
            lengths = [len(text) + -len(text) % STEP for text in texts]
            sequence = regions.sequence(
                size,
                lengths[0],
                lengths[1:],
                padding=-math.prod(size) % STEP,
                text_first=False,
                device=noisy.device,
                rotary=lambda sequence: self._rotary(sequence, size, noisy.device),
            )
            read = [texts[0 if text.place is None else text.place + 1] for text in sequence.texts]
            with regions.placement.in_a_row(sequence), self._padded(read):
                embeds = torch.cat([padded(text) for text in read])[None]
                answers.append(self.answer(noisy[row : row + 1], times[row : row + 1], Condition(embeds)))
        return torch.cat(answers)

    def _rotary(self, sequence: JointSequence, size: tuple[int, int], device: torch.device) -> Rotary:
        """Positions of picture and texts: each text ends where the picture begins, as it does when it is alone.

        Raises:
            InputError: the texts are longer together than the model counts.
        """
        longest, most = max(sequence.lengths), self.transformer.config.axes_lens[0]
        if sequence.text_length + 2 > most:
            raise InputError(
                f"the prompts of all regions take {sequence.text_length} tokens together, and this base counts to "
                f"{most}; shorten them, or give fewer regions"
            )
        rows, columns = (torch.arange(side, dtype=torch.int32) for side in size)
        cells = torch.cartesian_prod(torch.tensor([longest + 1], dtype=torch.int32), rows, columns)
        beyond = torch.zeros(sequence.shares.shape[1] - len(cells), 3, dtype=torch.int32)
        counts = torch.cat([torch.arange(longest - length, longest) + 1 for length in sequence.lengths]).int()
        words = torch.stack([counts, torch.zeros_like(counts), torch.zeros_like(counts)], 1)
        turn = self.transformer.rope_embedder
        return turn(torch.cat([cells, beyond]).to(device)), turn(words.to(device))

    @contextmanager
    def _padded(self, texts: Sequence[Tensor]) -> Iterator[None]:
        """Within the `with` block the model has its own token where a text is padded in the midst of a row."""
        pads = torch.cat([torch.arange(len(text) + -len(text) % STEP) >= len(text) for text in texts])[:, None]
        model = self.transformer
        handle = model.cap_embedder.register_forward_hook(
            lambda _, inputs, found: torch.where(pads.to(found.device), model.cap_pad_token, found)
        )
        try:
            yield
        finally:
            handle.remove()

    def answer(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The model counts time from noise to picture, and answers `x - n`."""
        pictures = list(noisy.to(dtype_of(self.transformer)).unsqueeze(2).unbind(0))
        texts = told(condition, torch.arange(len(noisy)))
        shares = 1 - times.expand(len(noisy)).to(noisy) / 1000
        answers = self.transformer(pictures, shares, texts, return_dict=False)[0]
        return -torch.stack(list(answers)).squeeze(2)


def told(condition: Condition, rows: Tensor) -> list[Tensor]:
    """(tokens, width) of each of these rows, without what they are padded with."""
    masks = condition.extra.get("mask")
    return [condition.embeds[row] if masks is None else condition.embeds[row][masks[row]] for row in rows.tolist()]


def padded(text: Tensor) -> Tensor:
    """(tokens, width) with its last token again up to a multiple of `STEP`."""
    return torch.cat([text, text[-1:].expand(-len(text) % STEP, -1)])
