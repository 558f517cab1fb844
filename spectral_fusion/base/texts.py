"""A tokenizer and its text encoder, and the words that concepts add to them.

A trigger of several vectors follows diffusers' textual inversion: `<rex>`, `<rex>_1`, `<rex>_2`, so that a stock
pipeline, whose `maybe_convert_prompt` looks for these names, reads `<rex>` as all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTokenizer, PreTrainedModel

from spectral_fusion.errors import InputError
from spectral_fusion.names import MENTION, check_trigger, respell, same


@dataclass(frozen=True, eq=False)
class TextPart:
    """One text encoder of a base with the tokenizer that feeds it."""

    tokenizer: CLIPTokenizer
    encoder: PreTrainedModel

    @property
    def embedding(self) -> nn.Module:
        """The module that turns token ids into vectors."""
        return self.encoder.get_input_embeddings()

    @property
    def max_length(self) -> int:
        """Positions of the encoder, those of the start and the end token included."""
        return self.tokenizer.model_max_length

    def token_ids(self, trigger: str) -> list[int]:
        """Ids of the trigger's tokens, in order; empty where the tokenizer does not have it."""
        added = self.tokenizer.added_tokens_encoder
        if trigger not in added:
            return []
        vectors = 1
        while f"{trigger}_{vectors}" in added:
            vectors += 1
        return [added[name] for name in token_names(trigger, vectors)]

    def triggers(self) -> list[str]:
        """Triggers that the tokenizer knows, each once however many vectors it has."""
        return sorted(token for token in self.tokenizer.get_added_vocab() if MENTION.fullmatch(token))

    def expand(self, text: str) -> str:
        """The text with each trigger of several vectors written out, as stock pipelines do it; in any case and form."""
        return TextualInversionLoaderMixin().maybe_convert_prompt(respell(text, self.triggers()), self.tokenizer)

    def is_one_token(self, word: str) -> bool:
        """Whether the tokenizer reads this word as one token."""
        return len(self.tokenizer(word, add_special_tokens=False).input_ids) == 1

    def word_embedding(self, text: str) -> Tensor:
        """(1, width), float32: the mean of the vectors of the text's tokens."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.embedding.weight.detach()[ids].float().mean(0, keepdim=True)

    def check_free(self, trigger: str) -> None:
        """Raises InputError where the tokenizer already knows the trigger."""
        word = trigger.lower()  # the tokenizer lowers what it reads
        known = any(self.tokenizer.backend_tokenizer.token_to_id(form) is not None for form in (word, f"{word}</w>"))
        taken = (trigger, f"{trigger}_1")
        if known or any(same(token, form) for token in self.tokenizer.added_tokens_encoder for form in taken):
            raise InputError(f"trigger {trigger} is already a word of this tokenizer; choose another trigger")

    def check(self, trigger: str, embeddings: Tensor) -> None:
        """Raises InputError where `add` would; changes nothing."""
        check_trigger(trigger)
        self.check_free(trigger)
        rows, width = self.embedding.weight.shape
        if embeddings.ndim != 2 or len(embeddings) == 0 or embeddings.shape[1] != width:
            raise InputError(
                f"embeddings of {trigger} have shape {tuple(embeddings.shape)}; this text encoder takes (n, {width}). "
                "Use a concept trained on this kind of base."
            )
        if rows != len(self.tokenizer):
            raise InputError(
                f"the text encoder has {rows} word vectors and the tokenizer {len(self.tokenizer)} words; "
                "load a base whose two parts belong together"
            )

    def add(self, triggers: Mapping[str, Tensor]) -> None:
        """Add triggers: the embedding matrix is copied once, and nothing changes if one of them is refused.

        Args:
            triggers: (n, width) vectors of each trigger, one row a token.

        Raises:
            InputError: a trigger is malformed or known, its vectors do not fit, or tokenizer and encoder disagree.
        """
        for trigger, embeddings in triggers.items():
            self.check(trigger, embeddings)
        weight = self.embedding.weight.detach()
        for trigger, embeddings in triggers.items():
            self.tokenizer.add_tokens(token_names(trigger, len(embeddings)))
        self._set_rows(torch.cat([weight, *(embeddings.detach().to(weight) for embeddings in triggers.values())]))

    def remove(self, triggers: Iterable[str]) -> None:
        """The inverse of `add`: tokenizer and embedding matrix are as if the triggers had never been added.

        Raises:
            InputError: the tokenizer does not have one of them.
        """
        weight = self.embedding.weight
        keep = torch.ones(len(weight), dtype=torch.bool)
        names = []
        for trigger in triggers:
            ids = self.token_ids(trigger)
            if not ids:
                raise InputError(f"trigger {trigger} is not in this base; nothing to remove")
            keep[ids] = False
            names += token_names(trigger, len(ids))
        _forget(self.tokenizer, names)
        self._set_rows(weight.detach()[keep.to(weight.device)])

    def _set_rows(self, rows: Tensor) -> None:
        """Replace the matrix inside its module, which may carry hooks and a place in an optimizer's groups."""
        self.embedding.weight = nn.Parameter(rows, requires_grad=self.embedding.weight.requires_grad)
        self.embedding.num_embeddings = self.encoder.config.vocab_size = len(rows)

    def chunks(self, text: str) -> list[list[int]]:
        """Token ids of a text in runs of `max_length`, each with start, end and padding: one run for a short text."""
        tokenizer, inner = self.tokenizer, self.max_length - 2
        with_ends = tokenizer(self.expand(text), padding="max_length", truncation=False).input_ids
        if len(with_ends) <= self.max_length:
            return [with_ends]
        ids = with_ends[1:-1]
        runs = [ids[start : start + inner] for start in range(0, len(ids), inner)]
        pads = [[tokenizer.pad_token_id] * (inner - len(run)) for run in runs]
        start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        return [[start, *run, end, *pad] for run, pad in zip(runs, pads, strict=True)]

    def token_runs(self, texts: Sequence[str]) -> list[Tensor]:
        """(chunks, max_length) ids of each text."""
        # What is longer than the encoder is read in several runs; the tokenizer's warning would be mistaken.
        self.tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        return [torch.tensor(self.chunks(text)) for text in texts]


def token_names(trigger: str, vectors: int) -> list[str]:
    """The tokens of a trigger with so many vectors: `<rex>`, `<rex>_1`, ..."""
    return [trigger, *(f"{trigger}_{i}" for i in range(1, vectors))]


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
