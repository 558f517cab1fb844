"""Triplets kept on disk, keyed by the content of the weight they came from."""

import hashlib
import logging
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from spectral_fusion.atomic import atomic_file
from spectral_fusion.spectral.svd import Triplets, as_matrix, leading_triplets

logger = logging.getLogger(__name__)

FORMAT = "spectral-fusion triplets 1"  # changes with the algorithm, so that old entries are not read again
SMALLEST = 192  # directions: below, a decomposition takes a few milliseconds
CORRUPT = 1e-3  # relative error of `W V = U S` beyond which an entry is not one of the weight


def default_cache_dir() -> Path:
    """`$SPECTRAL_FUSION_CACHE`, else `spectral-fusion` in the user's cache folder."""
    if own := os.environ.get("SPECTRAL_FUSION_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spectral-fusion"


def cached_triplets(weight: Tensor, lo: int, hi: int, *, cache_dir: Path | None = None) -> Triplets:
    """`leading_triplets`, read from disk where this weight was decomposed before.

    A weight small enough to decompose faster than a file is read is not cached. A broken entry, or a folder that cannot
    be written, costs the computation and nothing else. Several processes may share a folder.

    Args:
        cache_dir: None means `default_cache_dir()`.
    """
    if min(as_matrix(weight).shape) < SMALLEST:
        return leading_triplets(weight, lo, hi)
    entry = (cache_dir or default_cache_dir()) / f"{_content_key(weight, lo, hi)}.safetensors"
    found = _read(entry, weight)
    if found is None:
        found = leading_triplets(weight, lo, hi)
        _write(entry, found)
    return found


def _content_key(weight: Tensor, lo: int, hi: int) -> str:
    data = weight.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{FORMAT} {data.dtype} {tuple(data.shape)} {lo} {hi}".encode())
    digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(entry: Path, weight: Tensor) -> Triplets | None:
    """The triplets of an entry, or None where there is none or it does not hold triplets of this weight."""
    if not entry.exists():
        return None
    try:
        tensors = load_file(entry, device=str(weight.device))
        found = Triplets(tensors["U"], tensors["S"], tensors["V"])
        image = as_matrix(weight.detach()).to(found.V.dtype) @ found.V
        if (image - found.U * found.S).abs().max() <= CORRUPT * image.abs().max():
            return found
        reason: object = "its values do not belong to the weight"
    except (SafetensorError, KeyError, OSError, RuntimeError) as error:
        reason = error
    logger.warning("recomputing the broken cache entry %s: %s", entry, reason)
    return None


def _write(entry: Path, triplets: Triplets) -> None:
    data = save({name: part.cpu() for name, part in triplets._asdict().items()})
    try:
        with atomic_file(entry) as part:
            part.write_bytes(data)
    except OSError as error:
        logger.warning("triplets are not cached: %s", error)
