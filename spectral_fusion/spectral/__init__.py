"""The maths: tensors in, tensors out."""

from spectral_fusion.spectral.band import Band, Side
from spectral_fusion.spectral.cache import cached_triplets, decompose
from spectral_fusion.spectral.factors import (
    Factors,
    Mode,
    add_factors,
    additive_factors,
    rotational_factors,
    sum_factors,
)
from spectral_fusion.spectral.overlap import band_overlap, delta_norm, delta_overlap
from spectral_fusion.spectral.routing import SHRINKAGE, route_factors, routing_matrix
from spectral_fusion.spectral.svd import Triplets, all_triplets, as_matrix, singular_triplets

__all__ = [
    "SHRINKAGE",
    "Band",
    "Factors",
    "Mode",
    "Side",
    "Triplets",
    "add_factors",
    "additive_factors",
    "all_triplets",
    "as_matrix",
    "band_overlap",
    "cached_triplets",
    "decompose",
    "delta_norm",
    "delta_overlap",
    "rotational_factors",
    "route_factors",
    "routing_matrix",
    "singular_triplets",
    "sum_factors",
]
