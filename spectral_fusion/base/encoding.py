"""Prompts as what a denoiser attends to: plain ones in one batch, weighted ones through compel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from compel import Compel
from compel.prompt_parser import Conjunction, FlattenedPrompt
from torch import Tensor

from spectral_fusion.base.prompt import weigh
from spectral_fusion.base.texts import TextPart


def encode_plain(text: TextPart, prompts: Sequence[str]) -> Tensor:
    """Text embeddings of prompts as they stand, brackets and all. Gradients pass.

    A prompt longer than the encoder's n positions is read in chunks of n, side by side; shorter ones of the same call
    are followed by empty chunks.

    Returns:
        (prompts, k * n, width) in the text encoder's type and device.
    """
    runs = text.token_runs(prompts)
    longest = max(len(run) for run in runs)
    if longest > 1:
        empty = torch.tensor(text.chunks(""))
        runs = [torch.cat([run, *[empty] * (longest - len(run))]) for run in runs]
    states = text.encoder(torch.cat(runs).to(text.encoder.device))[0]
    return states.unflatten(0, (len(prompts), longest)).flatten(1, 2)


@torch.no_grad()
def encode_weighted(text: TextPart, prompts: Sequence[str]) -> Tensor:
    """`encode_plain` with prompt weights, `(word:1.3)`, `[word]`; each prompt as if it were alone."""
    compel = Compel(text.tokenizer, text.encoder, truncate_long_prompts=False)
    # compel measures prompts before it cuts them; the warning about their length would be mistaken.
    text.tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    embeddings = []
    for prompt in prompts:
        # Expanded here, not by compel's manager: that one decodes and encodes again, which alters some texts.
        words = [(text.expand(part), weight) for part, weight in weigh(prompt)]
        embedding, _ = compel.build_conditioning_tensor_for_conjunction(Conjunction([FlattenedPrompt(words)]))
        embeddings.append(embedding)
    return torch.cat(compel.pad_conditioning_tensors_to_same_length(embeddings))


def chunk_counts(text: TextPart, prompts: Sequence[str]) -> list[int]:
    """How many chunks `encode_plain` reads each prompt in."""
    return [len(run) for run in text.token_runs(prompts)]
