"""The maths: tensors in, tensors out."""

from spectral_fusion.spectral.band import Band
from spectral_fusion.spectral.cache import cached_triplets
from spectral_fusion.spectral.factors import (
    Factors,
    Mode,
    add_factors,
    additive_factors,
    rotational_factors,
    sum_factors,
)
from spectral_fusion.spectral.overlap import band_overlap, delta_norm, delta_overlap
from spectral_fusion.spectral.partition import balanced_directions, interleaved_directions, own_space, project_onto
from spectral_fusion.spectral.routing import SHRINKAGE, route_factors, routing_matrix
from spectral_fusion.spectral.svd import Triplets, as_matrix, leading_triplets

__all__ = [
    "SHRINKAGE",
    "Band",
    "Factors",
    "Mode",
    "Triplets",
    "add_factors",
    "additive_factors",
    "as_matrix",
    "balanced_directions",
    "band_overlap",
    "cached_triplets",
    "delta_norm",
    "delta_overlap",
    "interleaved_directions",
    "leading_triplets",
    "own_space",
    "project_onto",
    "rotational_factors",
    "route_factors",
    "routing_matrix",
    "sum_factors",
]
