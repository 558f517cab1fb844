"""Deltas and words on a base, and off again: how every method but the product's own is put to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from spectral_fusion.base.interface import Base, words
from spectral_fusion.base.merged import MergedWeights
from spectral_fusion.spectral import Factors
from study.training import Adapter

Deltas = dict[str, Factors]
Merge = Callable[[Base, Sequence[Adapter]], Deltas]
"""Concepts -> the delta of each layer."""
Fuse = Callable[[Base, Sequence[Adapter]], AbstractContextManager[None]]
"""Within the `with` block the base holds the concepts, deltas and words, and none after it."""


def applying(merge: Merge) -> Fuse:
    """The fusion that adds what `merge` makes to the weights; afterwards all is bit for bit as before."""

    @contextmanager
    def fuse(base: Base, adapters: Sequence[Adapter]) -> Iterator[None]:
        deltas = merge(base, adapters)
        merged = MergedWeights(base, list(deltas), deltas.__getitem__)
        with words(base, {adapter.trigger: adapter.embeddings for adapter in adapters}), merged.present():
            yield

    return fuse
