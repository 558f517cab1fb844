"""How much two bands, or two trained deltas, have in common."""

import torch

from spectral_fusion.spectral.factors import Factors
from spectral_fusion.spectral.svd import Triplets


def band_overlap(first: Triplets, second: Triplets) -> float:
    """Largest cosine between a direction of one band and one of the other, in the output or the input space.

    This is the cosine of the smallest principal angle between the spans: 0 for disjoint bands of one weight, 1 where
    they share a direction. Signs and rotations of the vectors inside a band do not change it.
    """
    cosines = [
        torch.linalg.matrix_norm(torch.linalg.qr(a.double()).Q.T @ torch.linalg.qr(b.double()).Q, ord=2)
        for a, b in ((first.U, second.U), (first.V, second.V))
    ]
    return min(1.0, float(max(cosines)))


def delta_overlap(first: Factors, second: Factors) -> float:
    """Absolute cosine of two deltas as vectors, from their factors alone; 0 where either delta is zero."""
    first, second = (Factors(factors.up.double(), factors.down.double()) for factors in (first, second))
    norms = _inner(first, first).sqrt() * _inner(second, second).sqrt()
    return min(1.0, float(_inner(first, second).abs() / norms)) if norms > 0 else 0.0


def delta_norm(factors: Factors) -> float:
    """Frobenius norm of a delta, from its factors alone; its square is the delta's energy."""
    double = Factors(factors.up.double(), factors.down.double())
    return float(_inner(double, double).clamp(min=0).sqrt())


def _inner(first: Factors, second: Factors) -> torch.Tensor:
    """`trace(delta_1^T delta_2)`, without either delta."""
    return ((first.up.T @ second.up) * (first.down @ second.down.T)).sum()
