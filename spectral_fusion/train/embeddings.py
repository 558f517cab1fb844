"""Token embeddings under training: how they start, and how they alone of the vocabulary can move."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from spectral_fusion.pipeline.tokens import token_ids
from spectral_fusion.train.config import TrainConfig
from spectral_fusion.train.randomness import generator


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


def first_embeddings(pipeline: StableDiffusionPipeline, config: TrainConfig) -> Tensor:
    """(vectors, width), float32: the first is the class word's, the others are noise that is a concept's own, by its
    name: two concepts of one seed must not begin as synonyms."""
    word = class_embedding(pipeline, config.class_word)
    return torch.cat(
        [word, word_like_noise(word, config.vectors - 1, generator(config.seed, config.name, "embeddings"))]
    )


def class_embedding(pipeline: StableDiffusionPipeline, word: str) -> Tensor:
    """(1, width), float32: the mean of the word's tokens."""
    weight = pipeline.text_encoder.get_input_embeddings().weight.detach()
    ids = pipeline.tokenizer(word, add_special_tokens=False).input_ids
    return weight[ids].float().mean(0, keepdim=True)


def word_like_noise(word: Tensor, count: int, source: torch.Generator) -> Tensor:
    """(count, width): noise about as long as a word (1, width). Shorter, a trigger would hardly differ from its class.

    Most rows of a vocabulary are rare words that training never moved far from zero, so theirs is not the measure.
    """
    return torch.randn(count, word.shape[1], generator=source).to(word) * word.square().mean().sqrt()


@contextmanager
def trainable_rows(pipeline: StableDiffusionPipeline, config: TrainConfig) -> Iterator[None]:
    """Let the trigger's rows train, unless their learning rate is 0."""
    if config.learning_rate_embedding == 0:
        yield
        return
    embedding = pipeline.text_encoder.get_input_embeddings()
    rows = TrainableRows(embedding, token_ids(pipeline, config.trigger))
    pipeline.text_encoder.set_input_embeddings(rows)
    try:
        yield
    finally:
        pipeline.text_encoder.set_input_embeddings(embedding)
