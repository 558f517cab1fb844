"""The maths: tensors in, tensors out."""

from typing import TYPE_CHECKING, Any

from spectral_fusion.spectral.band import Band, Mode, Side

if TYPE_CHECKING:
    from spectral_fusion.spectral.cache import cached_triplets, decompose
    from spectral_fusion.spectral.factors import (
        Factors,
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

_HOMES = {
    "cache": ("cached_triplets", "decompose"),
    "factors": ("Factors", "add_factors", "additive_factors", "rotational_factors", "sum_factors"),
    "overlap": ("band_overlap", "delta_norm", "delta_overlap"),
    "routing": ("SHRINKAGE", "route_factors", "routing_matrix"),
    "svd": ("Triplets", "all_triplets", "as_matrix", "singular_triplets"),
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: listing a library needs bands only."""
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"spectral_fusion.spectral.{home}"), name)
    raise AttributeError(name)
