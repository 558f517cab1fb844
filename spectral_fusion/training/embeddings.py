"""Token embeddings under training: how they start, and how they alone of the vocabulary can move."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spectral_fusion.base.interface import Base, Embeddings
from spectral_fusion.errors import InputError
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.randomness import generator


class TrainableRows(nn.Module):
    """A word embedding of which only the rows of a concept's own tokens train, in float32."""

    def __init__(self, embedding: nn.Embedding, ids: Sequence[int]):
        super().__init__()
        self.embedding = embedding
        self.register_buffer("ids", torch.tensor(ids, device=embedding.weight.device), persistent=False)
        self.rows = nn.Parameter(embedding.weight[self.ids].detach().float())

    @property
    def weight(self) -> Tensor:
        """(vocabulary, width): the whole matrix with the trained rows in it."""
        return self.embedding.weight.float().index_copy(0, self.ids, self.rows)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.embedding(input_ids)
        own = input_ids[..., None] == self.ids  # (batch, tokens, rows)
        rows = (own.to(self.rows.dtype) @ self.rows).to(hidden.dtype)
        return torch.where(own.any(-1, keepdim=True), rows, hidden)


def first_embeddings(base: Base, config: ResolvedConfig) -> Embeddings:
    """(vectors, width) for each text part, float32: the first is the class word's, the others are noise that is a
    concept's own, by its name, so that concepts trained with one seed do not start from the same vectors."""
    if base.texts and config.vectors == 0:
        raise InputError("vectors is 0, and this base learns words; give 1 or more")
    first = {}
    for part, text in base.texts.items():
        word = text.word_embedding(config.class_word)
        source = generator(config.seed, config.name, "embeddings", *_key(part))
        first[part] = torch.cat([word, word_like_noise(word, config.vectors - 1, source)])
    return first


def _key(part: str) -> list[str]:
    """What tells the noise of several text parts apart; the first one's needs nothing."""
    return [] if part == "text_encoder" else [part]


def word_like_noise(word: Tensor, count: int, source: torch.Generator) -> Tensor:
    """(count, width): noise about as long as a word (1, width). Shorter, a trigger would hardly differ from its class.

    Most rows of a vocabulary are rare words that training never moved far from zero, so theirs is not the measure.
    """
    return torch.randn(count, word.shape[1], generator=source).to(word) * word.square().mean().sqrt()


@contextmanager
def trainable_rows(base: Base, config: ResolvedConfig) -> Iterator[None]:
    """Let the trigger's rows train, unless their learning rate is 0."""
    if config.learning_rate_embedding == 0:
        yield
        return
    plain = {part: text.embedding for part, text in base.texts.items()}
    for part, text in base.texts.items():
        text.encoder.set_input_embeddings(TrainableRows(plain[part], text.token_ids(config.trigger)))
    try:
        yield
    finally:
        for part, text in base.texts.items():
            text.encoder.set_input_embeddings(plain[part])
