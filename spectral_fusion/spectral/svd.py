"""The leading singular triplets of a weight, without the rest of the decomposition."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from spectral_fusion.errors import InputError

SMALL = 256  # directions: below, a full SVD is as quick
TOLERANCE = 3e-6  # a full SVD in float32 errs by 1e-6; the nearest singular values of real weights differ by 1e-3
FIRST_CHECK = 5  # blocks

Method = Literal["auto", "full", "randomized"]


class Triplets(NamedTuple):
    """Singular triplets of a weight `W ~ U diag(S) V^T`, `S` descending.

    U: (out, r); S: (r,); V: (in, r).
    """

    U: Tensor
    S: Tensor
    V: Tensor


def as_matrix(weight: Tensor) -> Tensor:
    """A linear weight (out, in) as it is, a convolution's (out, in, kh, kw) as (out, in * kh * kw)."""
    return weight.flatten(1)


def leading_triplets(weight: Tensor, lo: int, hi: int, *, method: Method = "auto", seed: int = 0) -> Triplets:
    """Singular triplets `[lo, hi)` of a weight, largest first, signs canonical.

    Args:
        weight: (out, in) or (out, in, kh, kw), any floating type.
        method: "randomized" is block Krylov iteration from a random start (Musco and Musco 2015, algorithm 2) with
            a residual check; "full" decomposes the whole weight; "auto" takes whichever is quicker, and the full
            one where the check fails.
        seed: of the random start.

    Returns:
        Contiguous float32 triplets (float64 for a float64 weight) on the weight's device.

    Raises:
        InputError: the weight has fewer than `hi` directions, or holds NaN or infinity.
    """
    matrix = as_matrix(weight.detach())
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    directions = min(matrix.shape)
    if not 0 <= lo < hi <= directions:
        raise InputError(f"directions {lo} to {hi} of a {tuple(matrix.shape)} weight: it has {directions}; lower them")
    if not torch.isfinite(matrix.sum()):
        raise InputError(f"a {tuple(matrix.shape)} weight holds NaN or infinity; load the base again")
    found = None
    if method == "randomized" or (method == "auto" and directions >= SMALL and 8 * hi <= directions):
        found = _randomized(matrix, hi, seed)
    if found is None:
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        found = Triplets(U, S, Vh.T)
    U, S, V = (part[..., lo:hi] for part in found)
    sign = U.gather(0, U.abs().argmax(0, keepdim=True)).sign()
    return Triplets((U * sign).contiguous(), S.contiguous(), (V * sign).contiguous())


def _randomized(matrix: Tensor, wanted: int, seed: int) -> Triplets | None:
    """The first `wanted` triplets by block Krylov iteration, or None where the residual check fails.

    The block is as wide as what is wanted, so that equal singular values are all found. Vectors are kept as rows: thin
    products of that shape run twice as fast.
    """
    if matrix.shape[0] < matrix.shape[1]:
        flipped = _randomized(matrix.T.contiguous(), wanted, seed)
        return None if flipped is None else Triplets(flipped.V, flipped.S, flipped.U)
    width = matrix.shape[1]
    limit = 3 * width // 4  # beyond, a full decomposition is quicker
    basis = torch.empty(limit, width, dtype=matrix.dtype, device=matrix.device)  # orthonormal rows
    image = torch.empty(limit, len(matrix), dtype=matrix.dtype, device=matrix.device)  # basis @ matrix^T
    new = torch.randn(wanted, width, generator=torch.Generator().manual_seed(seed), dtype=matrix.dtype)
    new = new.to(matrix.device)
    check: float = FIRST_CHECK * wanted
    for size in range(wanted, limit, wanted):
        done = size - wanted
        for _ in range(2):  # in floating point once is not enough
            new = new - (new @ basis[:done].T) @ basis[:done]
        basis[done:size] = torch.linalg.qr(new.T).Q.T
        image[done:size] = basis[done:size] @ matrix.T
        if size >= check:
            found, error = _ritz(matrix, basis[:size], image[:size], wanted)
            if error <= TOLERANCE:
                return found
            check = size * _next_check(error)
        new = image[done:size] @ matrix
    return None


def _ritz(matrix: Tensor, basis: Tensor, image: Tensor, wanted: int) -> tuple[Triplets, float]:
    """Best triplets in the span of `basis` (size, in), where `image = basis @ matrix^T`, and their error.

    The error is the largest residual over the largest singular value, or the largest inner product of two vectors.
    """
    mix = torch.linalg.eigh(image @ image.T).eigenvectors[:, -wanted:].flip(1).T
    V, scaled = mix @ basis, mix @ image
    S = torch.linalg.vector_norm(scaled, dim=1)
    U = scaled / S[:, None]
    residual = torch.linalg.vector_norm(U @ matrix - S[:, None] * V, dim=1).max() / S[0]
    skew = (V @ V.T - torch.eye(wanted, dtype=V.dtype, device=V.device)).abs().max()
    error = float(torch.maximum(residual, skew))
    return Triplets(U.T, S, V.T), error if math.isfinite(error) else 1.0  # a zero weight has no directions


def _next_check(error: float) -> float:
    """By what factor the span should grow before another check: the error falls ever faster, a check is not free."""
    if error >= 1:
        return 2.0
    return min(2.0, 1 + 0.5 * math.log(error / TOLERANCE) / math.log(1 / error))
