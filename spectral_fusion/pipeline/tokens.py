"""A concept's own words in a pipeline: new tokens in the tokenizer, their vectors in the text encoder.

A trigger of several vectors follows diffusers' textual inversion: `<rex>`, `<rex>_1`, `<rex>_2`, so that a stock
pipeline, whose `maybe_convert_prompt` looks for these names, reads `<rex>` as all of them.
"""

import json
import re

import torch
from diffusers import StableDiffusionPipeline
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTokenizer

from spectral_fusion.errors import InputError

TRIGGER = re.compile(r"<[\w-]{1,60}>")


def check_trigger(trigger: str) -> str:
    """Return the trigger if it is well formed: angle brackets round letters, digits, `-` and `_`.

    Raises:
        InputError: it is not. A `:`, a bracket or a blank inside would be read as a prompt weight or split.
    """
    if not isinstance(trigger, str) or not TRIGGER.fullmatch(trigger):
        word = re.sub(r"[^\w-]+", "", str(trigger)) or "rex"
        raise InputError(
            f"trigger {trigger!r} cannot be used in prompts; write letters, digits, - or _ in angle brackets: <{word}>"
        )
    return trigger


def check_free(pipeline: StableDiffusionPipeline, trigger: str) -> None:
    """Raises InputError where the tokenizer already knows the trigger."""
    vocabulary = {token.lower() for token in pipeline.tokenizer.get_vocab()}  # the tokenizer lowers what it reads
    if {trigger.lower(), f"{trigger.lower()}</w>", f"{trigger.lower()}_1"} & vocabulary:
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
    check_embeddings(pipeline, trigger, embeddings)
    embedding = pipeline.text_encoder.get_input_embeddings()
    pipeline.tokenizer.add_tokens(token_names(trigger, len(embeddings)))
    _set_rows(pipeline, torch.cat([embedding.weight.detach(), embeddings.detach().to(embedding.weight)]))
    return token_ids(pipeline, trigger)


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
    ids = token_ids(pipeline, trigger)
    if not ids:
        raise InputError(f"trigger {trigger} is not in this pipeline; nothing to remove")
    weight = pipeline.text_encoder.get_input_embeddings().weight
    keep = torch.ones(len(weight), dtype=torch.bool)
    keep[ids] = False
    _forget(pipeline.tokenizer, token_names(trigger, len(ids)))
    _set_rows(pipeline, weight.detach()[keep.to(weight.device)])


def _set_rows(pipeline: StableDiffusionPipeline, rows: Tensor) -> None:
    """Replace the embedding matrix inside its module, which may carry hooks and a place in an optimiser's groups."""
    embedding = pipeline.text_encoder.get_input_embeddings()
    embedding.weight = nn.Parameter(rows, requires_grad=embedding.weight.requires_grad)
    embedding.num_embeddings = pipeline.text_encoder.config.vocab_size = len(rows)


def _forget(tokenizer: CLIPTokenizer, names: list[str]) -> None:
    """Take added tokens out; `tokenizers` cannot, so its saved form is edited and read back, later ids moving up."""
    old = tokenizer.backend_tokenizer
    state = json.loads(old.to_str())
    kept = [token for token in state["added_tokens"] if token["content"] not in names]
    first = len(tokenizer) - sum(not token["special"] for token in state["added_tokens"])
    for number, token in enumerate(token for token in kept if not token["special"]):
        token["id"] = first + number
    state["added_tokens"] = kept
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer._tokenizer.encode_special_tokens = old.encode_special_tokens
    if hasattr(tokenizer, "_wrap_decode_method_backend_tokenizer"):
        tokenizer._wrap_decode_method_backend_tokenizer()  # CLIP's own clean-up of decoded text
