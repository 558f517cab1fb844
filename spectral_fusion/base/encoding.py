"""Prompts as what a denoiser attends to: plain ones in one batch, weighted ones through compel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from compel import Compel, ReturnedEmbeddingsType
from compel.prompt_parser import Conjunction, FlattenedPrompt
from torch import Tensor

from spectral_fusion.base.offload import work_device
from spectral_fusion.base.prompt import weigh_parts
from spectral_fusion.base.texts import TextPart

LAST = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
LAST_BUT_ONE = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED


def encode_plain(text: TextPart, prompts: Sequence[str]) -> Tensor:
    """Text embeddings of prompts as they stand, brackets and all. Gradients pass.

    A prompt longer than the encoder's n positions is read in chunks of n, side by side; shorter ones of the same call
    are followed by empty chunks.

    Returns:
        (prompts, k * n, width) in the text encoder's type and device.
    """
    ids = token_batch(text, prompts)
    states = text.encoder(ids.flatten(0, 1).to(text.encoder.device))[0]
    return states.unflatten(0, ids.shape[:2]).flatten(1, 2)


@torch.no_grad()
def encode_weighted(text: TextPart, prompts: Sequence[str], layer: ReturnedEmbeddingsType = LAST) -> Tensor:
    """`encode_plain` with prompt weights, `(word:1.3)`, `[word]`; each prompt as if it were alone."""
    compel = Compel(
        text.tokenizer,
        text.encoder,
        truncate_long_prompts=False,
        returned_embeddings_type=layer,
        device=work_device(text.encoder),
    )
    # compel measures prompts before it cuts them; the warning about their length would be mistaken.
    text.tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    embeddings = []
    for prompt in prompts:
        # Expanded here, not by compel's manager: that one decodes and encodes again, which alters some texts.
        runs = []
        for part in weigh_parts(prompt):
            words = [(text.expand(piece), weight) for piece, weight in part]
            runs.append(compel.build_conditioning_tensor_for_conjunction(Conjunction([FlattenedPrompt(words)]))[0])
        embeddings.append(torch.cat(runs, dim=1))
    return torch.cat(compel.pad_conditioning_tensors_to_same_length(embeddings))


def encode_inner(text: TextPart, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """`encode_plain` from the encoder's last layer but one, and the pooled text where the encoder has it.

    Returns:
        (prompts, k * n, width), and (prompts, width) of each prompt's first chunk.
    """
    ids = token_batch(text, prompts)
    found = text.encoder(ids.flatten(0, 1).to(text.encoder.device), output_hidden_states=True)
    words = found.hidden_states[-2].unflatten(0, ids.shape[:2]).flatten(1, 2)
    pooled = getattr(found, "text_embeds", None)
    return words, None if pooled is None else pooled.unflatten(0, ids.shape[:2])[:, 0]


@torch.no_grad()
def encode_inner_weighted(text: TextPart, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """`encode_inner` with prompt weights; the pooled text has none, and is of the first run."""
    plain = ["".join(text for text, _ in weigh_parts(prompt)[0]) for prompt in prompts]
    return encode_weighted(text, prompts, LAST_BUT_ONE), encode_inner(text, plain)[1]


def token_batch(text: TextPart, prompts: Sequence[str]) -> Tensor:
    """(prompts, chunks, length) token ids; as many chunks as the longest prompt needs."""
    runs = text.token_runs(prompts)
    longest = max(len(run) for run in runs)
    if longest > 1:
        empty = torch.tensor(text.chunks(""))
        runs = [torch.cat([run, *[empty] * (longest - len(run))]) for run in runs]
    return torch.stack(runs)


def chunk_counts(text: TextPart, prompts: Sequence[str]) -> list[int]:
    """How many chunks `encode_plain` reads each prompt in."""
    return [len(run) for run in text.token_runs(prompts)]
