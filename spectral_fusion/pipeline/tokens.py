"""A concept's own words in a pipeline: new tokens in the tokenizer, their vectors in the text encoder.

A trigger of several vectors follows diffusers' textual inversion: `<rex>`, `<rex>_1`, `<rex>_2`, so that a stock
pipeline, whose `maybe_convert_prompt` looks for these names, reads `<rex>` as all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from spectral_fusion.errors import InputError
from spectral_fusion.names import check_trigger

if TYPE_CHECKING:  # the library checks triggers, and should not wait for these
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer


def check_free(pipeline: StableDiffusionPipeline, trigger: str) -> None:
    """Raises InputError where the tokenizer already knows the trigger."""
    added = {token.lower() for token in pipeline.tokenizer.added_tokens_encoder}  # the tokenizer lowers what it reads
    word = trigger.lower()
    known = any(pipeline.tokenizer.backend_tokenizer.token_to_id(form) is not None for form in (word, f"{word}</w>"))
    if known or {word, f"{word}_1"} & added:
        raise InputError(f"trigger {trigger} is already a word of this tokenizer; choose another trigger")


def token_names(trigger: str, vectors: int) -> list[str]:
    """The tokens of a trigger with so many vectors: `<rex>`, `<rex>_1`, ..."""
    return [trigger, *(f"{trigger}_{i}" for i in range(1, vectors))]


def token_ids(pipeline: StableDiffusionPipeline, trigger: str) -> list[int]:
    """Ids of the trigger's tokens, in order; empty where the pipeline does not have it."""
    added = pipeline.tokenizer.added_tokens_encoder
    if trigger not in added:
        return []
    vectors = 1
    while f"{trigger}_{vectors}" in added:
        vectors += 1
    return [added[name] for name in token_names(trigger, vectors)]


def add_tokens(pipeline: StableDiffusionPipeline, trigger: str, embeddings: Tensor) -> list[int]:
    """Teach the pipeline a trigger; `remove_tokens` is the inverse.

    Args:
        embeddings: (n, width), one row a token, width that of the text encoder.

    Returns:
        The ids of the n new tokens.

    Raises:
        InputError: the trigger is malformed or known, the vectors do not fit, or tokenizer and text encoder disagree.
    """
    add_all_tokens(pipeline, {trigger: embeddings})
    return token_ids(pipeline, trigger)


def add_all_tokens(pipeline: StableDiffusionPipeline, triggers: Mapping[str, Tensor]) -> None:
    """`add_tokens` for several triggers: the embedding matrix is copied once, and nothing changes if one is refused."""
    for trigger, embeddings in triggers.items():
        check_embeddings(pipeline, trigger, embeddings)
    weight = pipeline.text_encoder.get_input_embeddings().weight.detach()
    for trigger, embeddings in triggers.items():
        pipeline.tokenizer.add_tokens(token_names(trigger, len(embeddings)))
    _set_rows(pipeline, torch.cat([weight, *(embeddings.detach().to(weight) for embeddings in triggers.values())]))


def check_embeddings(pipeline: StableDiffusionPipeline, trigger: str, embeddings: Tensor) -> None:
    """Raises InputError where `add_tokens` would; changes nothing."""
    check_trigger(trigger)
    check_free(pipeline, trigger)
    rows, width = pipeline.text_encoder.get_input_embeddings().weight.shape
    if embeddings.ndim != 2 or len(embeddings) == 0 or embeddings.shape[1] != width:
        raise InputError(
            f"embeddings of {trigger} have shape {tuple(embeddings.shape)}; this text encoder takes (n, {width}). "
            "Use a concept trained on this kind of base."
        )
    if rows != len(pipeline.tokenizer):
        raise InputError(
            f"the text encoder has {rows} word vectors and the tokenizer {len(pipeline.tokenizer)} words; "
            "load a base whose two parts belong together"
        )


def remove_tokens(pipeline: StableDiffusionPipeline, trigger: str) -> None:
    """Forget a trigger: tokenizer and embedding matrix are as if it had never been added.

    Raises:
        InputError: the pipeline does not have this trigger.
    """
    remove_all_tokens(pipeline, [trigger])


def remove_all_tokens(pipeline: StableDiffusionPipeline, triggers: Iterable[str]) -> None:
    """`remove_tokens` for several triggers at once."""
    weight = pipeline.text_encoder.get_input_embeddings().weight
    keep = torch.ones(len(weight), dtype=torch.bool)
    names = []
    for trigger in triggers:
        ids = token_ids(pipeline, trigger)
        if not ids:
            raise InputError(f"trigger {trigger} is not in this pipeline; nothing to remove")
        keep[ids] = False
        names += token_names(trigger, len(ids))
    _forget(pipeline.tokenizer, names)
    _set_rows(pipeline, weight.detach()[keep.to(weight.device)])


def _set_rows(pipeline: StableDiffusionPipeline, rows: Tensor) -> None:
    """Replace the embedding matrix inside its module, which may carry hooks and a place in an optimiser's groups."""
    embedding = pipeline.text_encoder.get_input_embeddings()
    embedding.weight = nn.Parameter(rows, requires_grad=embedding.weight.requires_grad)
    embedding.num_embeddings = pipeline.text_encoder.config.vocab_size = len(rows)


def _forget(tokenizer: CLIPTokenizer, names: list[str]) -> None:
    """Take added tokens out. `tokenizers` cannot, so the parts go into a new one; later ids move up."""
    old = tokenizer.backend_tokenizer
    new = Tokenizer(old.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "encode_special_tokens"):
        setattr(new, part, getattr(old, part))
    for _, token in sorted(old.get_added_tokens_decoder().items()):
        if token.content not in names:
            (new.add_special_tokens if token.special else new.add_tokens)([token])
    if old.truncation:
        new.enable_truncation(**old.truncation)
    if old.padding:
        new.enable_padding(**old.padding)
    tokenizer._tokenizer = new
    if hasattr(tokenizer, "_wrap_decode_method_backend_tokenizer"):
        tokenizer._wrap_decode_method_backend_tokenizer()  # CLIP's own clean-up of decoded text
