"""The leading singular triplets of a weight, without the rest of the decomposition."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from spectral_fusion.errors import InputError

SMALL = 192  # below this many directions a full SVD takes milliseconds
BLOCK_EXTRA = 8  # columns of a block beyond the wanted triplets
TOLERANCE = 2e-6  # worst residual over the largest singular value; a full float32 SVD reaches about half of it
ROUNDS = 6  # power iterations between two residual checks

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
    if not torch.isfinite(matrix).all():
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
    """The first `wanted` triplets by block Krylov iteration, or None where they are not exact to `TOLERANCE`."""
    if matrix.shape[0] < matrix.shape[1]:
        flipped = _randomized(matrix.T, wanted, seed)
        return None if flipped is None else Triplets(flipped.V, flipped.S, flipped.U)
    width, block = matrix.shape[1], wanted + BLOCK_EXTRA
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(width, block, generator=generator, dtype=matrix.dtype).to(matrix.device)
    basis = torch.linalg.qr(start).Q
    image = matrix @ basis
    while basis.shape[1] + ROUNDS * block <= width // 2:
        for _ in range(ROUNDS):
            new = matrix.T @ image[:, -block:]
            for _ in range(2):  # once is not enough in floating point
                new = new - basis @ (basis.T @ new)
            new = torch.linalg.qr(new).Q
            basis, image = torch.cat([basis, new], dim=1), torch.cat([image, matrix @ new], dim=1)
        Q, R = torch.linalg.qr(image)
        left, S, right = torch.linalg.svd(R)
        found = Triplets(Q @ left[:, :wanted], S[:wanted], basis @ right[:wanted].T)
        residual = torch.linalg.vector_norm(matrix.T @ found.U - found.V * found.S, dim=0).max()
        if residual <= TOLERANCE * S[0]:
            return found
    return None
