"""What one concept of a family costs: trainable numbers, and bytes on disk."""

from __future__ import annotations

from spectral_fusion.concept import Concept
from spectral_fusion.evaluate.methods import Spectral
from study.families import Family
from study.training import Adapter


def trainable_numbers(family: Family, adapter: Adapter) -> int:
    """How many numbers the training of one concept set, token embeddings included."""
    if isinstance(adapter, Concept):
        return Spectral((adapter,)).parameters
    fixed = sum(A.numel() for A, _ in adapter.layers.values()) if family.kind == "orthogonal" else 0
    return adapter.parameters - fixed


def megabytes(family: Family, adapter: Adapter) -> float:
    """What a file of the concept holds, at two bytes a number: a spectral one its basis too."""
    numbers = trainable_numbers(family, adapter)
    if isinstance(adapter, Concept):
        numbers += sum(t.numel() for layer in adapter.layers.values() for t in layer.basis)
    return 2 * numbers / 1e6
