"""How much the band of one concept shares with those of all others of a library, read from their files.

Bands of one base that are apart hold different singular vectors of the same weights, which are orthogonal: only those
that may meet are opened, and of these only `U` and `V`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from spectral_fusion.concept.file import Concept
from spectral_fusion.concept.holdings import Holdings
from spectral_fusion.concept.joint import Overlap
from spectral_fusion.concept.library import Library
from spectral_fusion.concept.read import FILE_NAME, open_concept


def library_overlaps(concept: Concept, library: Library, stock: Holdings | None = None) -> list[Overlap]:
    """The overlap with each concept of the library whose band may meet this one's, the largest first.

    All others of its base are apart from it. Those without a common layer are left out.

    Args:
        stock: what the library holds, where that is known.

    Raises:
        InputError: one of their files is broken.
    """
    mine = {name: _orthonormal(layer.basis.U, layer.basis.V) for name, layer in concept.layers.items()}
    found = []
    for other in (stock or library.stock()).concepts:
        if other.name != concept.name and other.base == concept.base and other.may_share_band(concept):
            path = library.root / other.name / FILE_NAME  # a name in another Unicode form needs a search
            found.append(_overlap(concept.name, mine, other.name, path if path.exists() else library.path(other.name)))
    return sorted(filter(None, found), key=lambda overlap: (-overlap.value, overlap.second))


def _overlap(first: str, mine: dict[str, tuple[Tensor, Tensor]], second: str, path: Path) -> Overlap | None:
    """As `spectral.band_overlap`, for all layers at once. Saved vectors are orthonormal to 1e-3, and so is this."""
    with open_concept(path) as (info, file):
        common = [layer for layer in mine if layer in info.fingerprints]
        if not common:
            return None
        products = [
            own.T @ file.read(f"{layer}.{part}").float()
            for layer in common
            for own, part in zip(mine[layer], ("U", "V"), strict=True)
        ]
    cosines = torch.linalg.matrix_norm(torch.stack(products), ord=2).view(len(common), 2).amax(1)
    worst = int(cosines.argmax())
    return Overlap(first, second, common[worst], min(1.0, float(cosines[worst])))


def _orthonormal(U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.qr(U.float()).Q, torch.linalg.qr(V.float()).Q
