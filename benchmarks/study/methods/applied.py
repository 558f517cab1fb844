"""Dense deltas and tokens on a pipeline, and off again: how every method but the product's own is put to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from diffusers import StableDiffusionPipeline
from torch import Tensor

from spectral_fusion.concept.fingerprint import pipeline_layers
from spectral_fusion.pipeline.tokens import add_all_tokens, remove_all_tokens
from study.training import Adapter

Deltas = dict[str, Tensor]
Merge = Callable[[StableDiffusionPipeline, Sequence[Adapter]], Deltas]
"""Concepts -> the delta (out, in) of each layer, computed in float32."""
Fuse = Callable[[StableDiffusionPipeline, Sequence[Adapter]], AbstractContextManager[None]]
"""Within the `with` block the pipeline holds the concepts, deltas and tokens, and none after it."""


def applying(merge: Merge) -> Fuse:
    """The fusion that adds what `merge` makes to the weights."""

    @contextmanager
    def fuse(pipeline: StableDiffusionPipeline, adapters: Sequence[Adapter]) -> Iterator[None]:
        with applied(pipeline, merge(pipeline, adapters), adapters):
            yield

    return fuse


@contextmanager
def applied(
    pipeline: StableDiffusionPipeline, deltas: Mapping[str, Tensor], adapters: Sequence[Adapter]
) -> Iterator[None]:
    """Add deltas to the weights and the adapters' tokens to the vocabulary; afterwards all is bit for bit as before."""
    layers = pipeline_layers(pipeline)
    parameters = {name: layers[name].weight for name in deltas}
    originals = {name: parameter.data for name, parameter in parameters.items()}
    add_all_tokens(pipeline, {adapter.trigger: adapter.embeddings for adapter in adapters})
    try:
        for name, delta in deltas.items():
            weight = originals[name]
            parameters[name].data = (weight.float() + delta.view(weight.shape)).to(weight.dtype)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = originals[name]
        remove_all_tokens(pipeline, [adapter.trigger for adapter in adapters])
