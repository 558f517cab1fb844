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
    """(vectors, width), float32: the first is the mean of the class word's tokens, the others are noise of the spread
    that words of this base have, as the first vector of Mix-of-Show is."""
    weight = pipeline.text_encoder.get_input_embeddings().weight.detach()
    ids = pipeline.tokenizer(config.class_word, add_special_tokens=False).input_ids
    noise = torch.randn(config.vectors - 1, weight.shape[1], generator=generator(config.seed, "embeddings"))
    return torch.cat([weight[ids].float().mean(0, keepdim=True), noise.to(weight.device) * weight.float().std()])


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
