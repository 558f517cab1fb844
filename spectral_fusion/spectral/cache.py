"""Triplets kept on disk, keyed by what a weight keeps in every precision: its shape and its signs.

Rounding turns no sign, so a copy of a base in half precision finds what was decomposed from the original. The other way
round nothing is taken: an entry made from a rounded weight gives way to the original's.
"""

import hashlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spectral_fusion.atomic import atomic_file
from spectral_fusion.spectral.band import Band
from spectral_fusion.spectral.svd import Triplets, as_matrix, end_triplets, full_triplets, singular_triplets
from spectral_fusion.unfinished import cache_folder

logger = logging.getLogger(__name__)

FORMAT = "spectral-fusion triplets 2"  # changes with the algorithm, so that old entries are not read again
SMALLEST = 192  # directions: below, a decomposition takes a few milliseconds
CORRUPT = 1e-4  # error of an entry, over the root mean square singular value, beyond which it is not the weight's
DIGITS = ((torch.bfloat16, 8), (torch.float16, 11), (torch.float32, 24))  # significant bits


def decompose(weights: Mapping[str, Tensor], band: Band, *, cache_dir: Path | None = None) -> dict[str, Triplets]:
    """A band of each weight, by the weights' names.

    Call it on the weights as the checkpoint has them. Bands of a weight that was rounded to bfloat16 are those of
    another weight, and overlap neighbouring bands of the original.
    """
    bases = {}
    for number, (name, weight) in enumerate(weights.items(), 1):
        logger.info("decomposing layer %d of %d", number, len(weights))
        span = band.within(min(as_matrix(weight).shape))
        bases[name] = cached_triplets(weight, span.start, span.stop, cache_dir=cache_dir)
    return bases


def cached_triplets(weight: Tensor, lo: int, hi: int, *, cache_dir: Path | None = None) -> Triplets:
    """`singular_triplets`, read from disk where this weight, in this precision or a better one, was decomposed before.

    A band deep inside the spectrum takes a full decomposition. Its part from the nearer end is kept, so that the bands
    around need no other. A weight small enough to decompose faster than a file is read is not cached. A broken entry,
    or a folder that cannot be written, costs the computation and nothing else. Several processes may share a folder.

    Args:
        cache_dir: None means `unfinished.cache_folder()`.
    """
    directions = min(as_matrix(weight).shape)
    if directions < SMALLEST:
        return singular_triplets(weight, lo, hi)
    entry = _Entries(weight, cache_dir or cache_folder())
    if found := entry.read(lo, hi):
        return found
    found = end_triplets(weight, lo, hi)
    if found is None:
        first, last = kept_end(lo, hi, directions)
        kept = entry.read(first, last)
        if kept is None:
            kept = full_triplets(weight, first, last)
            entry.write(first, last, kept)
        found = kept.part(lo - first, hi - first)
    entry.write(lo, hi, found)
    return found


def kept_end(lo: int, hi: int, directions: int) -> tuple[int, int]:
    """Which triplets of a full decomposition are kept: an eighth, a quarter, a half or all, from the nearer end."""
    top = hi <= directions - lo
    depth = min(hi, directions - lo)
    size = next(size for size in (directions // 8, directions // 4, directions // 2, directions) if size >= depth)
    return (0, size) if top else (directions - size, directions)


class _Entries:
    """The entries of one weight in a folder."""

    def __init__(self, weight: Tensor, folder: Path):
        self.weight, self.folder = weight.detach(), folder
        self.digits = _digits(self.weight)
        digest = hashlib.sha256(f"{FORMAT} {tuple(weight.shape)} {weight.dtype == torch.float64}".encode())
        digest.update(np.packbits(torch.signbit(self.weight).cpu().numpy()).tobytes())
        self.key = digest.hexdigest()

    def path(self, lo: int, hi: int) -> Path:
        return self.folder / f"{self.key}-{lo}-{hi}.safetensors"

    def read(self, lo: int, hi: int) -> Triplets | None:
        """The triplets of an entry; None where there is none, it is of a rounded copy, or not of this weight."""
        path = self.path(lo, hi)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt", device=str(self.weight.device)) as file:
                if int((file.metadata() or {})["digits"]) < self.digits:
                    return None
                found = Triplets(*(file.get_tensor(name) for name in Triplets._fields))
            if self._fits(found):
                return found
            reason: object = "its values do not belong to the weight"
        except (SafetensorError, KeyError, ValueError, OSError, RuntimeError) as error:
            reason = error
        logger.warning("recomputing the broken cache entry %s: %s", path, reason)
        return None

    def write(self, lo: int, hi: int, triplets: Triplets) -> None:
        data = save(
            {name: part.cpu() for name, part in triplets._asdict().items()}, metadata={"digits": str(self.digits)}
        )
        try:
            with atomic_file(self.path(lo, hi)) as part:
                part.write_bytes(data)
        except OSError as error:
            logger.warning("triplets are not cached: %s", error)

    def _fits(self, triplets: Triplets) -> bool:
        """Whether these are orthonormal triplets of the weight, as far as its own rounding lets one say."""
        U, S, V = triplets
        matrix = as_matrix(self.weight).to(V.dtype)
        scale = torch.linalg.vector_norm(matrix) / math.sqrt(min(matrix.shape))
        identity = torch.eye(len(S), dtype=V.dtype, device=V.device)
        skew = max((part.T @ part - identity).abs().max() for part in (U, V))
        errors = (matrix @ V - U * S, matrix.T @ U - V * S)
        error = max(torch.linalg.vector_norm(part, dim=0).max() for part in errors)
        return bool(skew <= CORRUPT and error <= max(CORRUPT, 2.0 ** (1 - self.digits)) * scale)


def _digits(weight: Tensor) -> int:
    """Significant bits of the weight's values, whatever type holds them: a rounded copy may have been cast back."""
    for dtype, digits in DIGITS:
        if torch.equal(weight.to(dtype).to(weight.dtype), weight):
            return digits
    return 53
