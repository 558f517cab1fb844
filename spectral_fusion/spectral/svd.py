"""Singular triplets of a weight: near either end of its spectrum without the rest, or all of them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from spectral_fusion.errors import InputError

SMALL = 256  # directions: below, a full SVD is as quick as anything else
NEAR = 16  # a band within this part of the directions, from either end, is found without the rest
TOLERANCE = 3e-6  # a full SVD in float32 errs by 1e-6; the nearest singular values of real weights differ by 1e-3
TOLERANCE_BOTTOM = 1e-8  # in float64, over each value itself: the smallest may be a thousandth of the largest
SMALLEST_VALUE = 2e-5  # over the largest: below, vectors from the Gram matrix lose what float32 can hold
FIRST_CHECK = 5  # blocks
WIDEST = 0.75  # of the directions: where the iteration has not converged in so many, a full decomposition is quicker
WIDEST_BOTTOM = 0.5  # each of its steps costs more

Product = Callable[[Tensor], Tensor]


class Triplets(NamedTuple):
    """Singular triplets of a weight `W ~ U diag(S) V^T`, `S` descending.

    U: (out, r); S: (r,); V: (in, r).
    """

    U: Tensor
    S: Tensor
    V: Tensor

    def part(self, lo: int, hi: int) -> "Triplets":
        """Triplets `lo` to `hi - 1` of these, as tensors of their own."""
        return Triplets(*(tensor[..., lo:hi].clone(memory_format=torch.contiguous_format) for tensor in self))


def as_matrix(weight: Tensor) -> Tensor:
    """A linear weight (out, in) as it is, a convolution's (out, in, kh, kw) as (out, in * kh * kw)."""
    return weight.flatten(1)


def singular_triplets(weight: Tensor, lo: int, hi: int) -> Triplets:
    """Singular triplets `[lo, hi)` of a weight, largest first, signs canonical.

    Args:
        weight: (out, in) or (out, in, kh, kw), any floating type.

    Returns:
        Contiguous float32 triplets (float64 for a float64 weight) on the weight's device.

    Raises:
        InputError: the weight has fewer than `hi` directions, or holds NaN or infinity.
    """
    found = end_triplets(weight, lo, hi)
    return full_triplets(weight, lo, hi) if found is None else found


def end_triplets(weight: Tensor, lo: int, hi: int) -> Triplets | None:
    """`singular_triplets` without the rest of the decomposition, or None where that is no quicker or does not converge.

    Block Krylov iteration with a residual check (Musco and Musco 2015, algorithm 2): on the weight from the top end, on
    the inverse of its Gram matrix from the bottom end.
    """
    matrix = _checked(weight)
    directions = min(matrix.shape)
    if not 0 <= lo < hi <= directions:
        raise InputError(f"directions {lo} to {hi} of a {tuple(matrix.shape)} weight: it has {directions}; lower them")
    depth = min(hi, directions - lo)
    if directions < SMALL or NEAR * depth > directions:
        return None
    wide = matrix.shape[0] < matrix.shape[1]
    tall = matrix.T.contiguous() if wide else matrix
    top = depth == hi
    found = _top(tall, depth) if top else _bottom(tall, depth)
    if found is None:
        return None
    U, S, V = found.part(lo, hi) if top else found.part(lo - directions + depth, hi - directions + depth)
    return _canonical(Triplets(V, S, U) if wide else Triplets(U, S, V), matrix.dtype)


def full_triplets(weight: Tensor, lo: int, hi: int) -> Triplets:
    """`singular_triplets` from a decomposition of the whole weight."""
    matrix = _checked(weight)
    if min(matrix.shape) < SMALL:
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        found = Triplets(U, S, Vh.T)
    elif matrix.shape[0] < matrix.shape[1]:
        V, S, U = _full(matrix.T.double(), lo, hi)
        found = Triplets(U, S, V)
    else:
        found = _full(matrix.double(), lo, hi)
    return _canonical(found.part(lo, hi), matrix.dtype)


def all_triplets(weight: Tensor) -> Triplets:
    """All singular triplets of a weight."""
    return full_triplets(weight, 0, min(as_matrix(weight).shape))


def _checked(weight: Tensor) -> Tensor:
    """The weight as a matrix in float32, or float64 where it is."""
    matrix = as_matrix(weight.detach())
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    if not torch.isfinite(matrix.sum()):
        raise InputError(f"a {tuple(matrix.shape)} weight holds NaN or infinity; load the base again")
    return matrix


def _canonical(found: Triplets, dtype: torch.dtype) -> Triplets:
    """With the largest entry of each left vector positive."""
    U, S, V = found
    sign = U.gather(0, U.abs().argmax(0, keepdim=True)).sign()
    return Triplets(*(part.to(dtype).contiguous() for part in (U * sign, S, V * sign)))


def _full(matrix: Tensor, lo: int, hi: int) -> Triplets:
    """All triplets of a tall float64 matrix, of which `[lo, hi)` are exact.

    From its Gram matrix, or directly where these are so small that squaring loses them.
    """
    V = torch.linalg.eigh(_lower_gram(matrix)).eigenvectors.flip(1)
    scaled = matrix @ V
    S = torch.linalg.vector_norm(scaled, dim=0)
    if S[lo:hi].min() >= SMALLEST_VALUE * S.max() > 0:
        return Triplets(scaled / S, S, V)
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return Triplets(U, S, Vh.T)


def _lower_gram(matrix: Tensor, block: int = 256) -> Tensor:
    """The lower triangle of `matrix^T matrix`, which is all that `cholesky` and `eigh` read; above it are zeros."""
    width = matrix.shape[1]
    gram = matrix.new_zeros(width, width)
    for start in range(0, width, block):
        columns = slice(start, start + block)
        gram[start:, columns] = matrix[:, start:].T @ matrix[:, columns]
    return gram


def _top(matrix: Tensor, wanted: int) -> Triplets | None:
    """The first `wanted` triplets of a tall matrix."""
    back = matrix.T.contiguous()

    def error(U: Tensor, S: Tensor, V: Tensor) -> Tensor:
        return torch.linalg.vector_norm(U @ matrix - S[:, None] * V, dim=1).max() / S[0]

    return _krylov(lambda x: x @ back, lambda y: y @ matrix, error, matrix, wanted, TOLERANCE, WIDEST)


def _bottom(matrix: Tensor, wanted: int) -> Triplets | None:
    """The last `wanted` triplets of a tall matrix, `S` descending.

    With `W^T W = L L^T` the right vectors of W for its smallest values are those of `L^-1` for its largest.
    """
    double = matrix.double()
    L, failed = torch.linalg.cholesky_ex(_lower_gram(double))
    if failed:
        return None

    def forth(x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(L, x.T, upper=False).T

    def back(y: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(L.T, y.T, upper=True).T

    def error(U: Tensor, S: Tensor, V: Tensor) -> Tensor:
        return (torch.linalg.vector_norm(back(U) - S[:, None] * V, dim=1) / S).max()

    inverse = _krylov(forth, back, error, L, wanted, TOLERANCE_BOTTOM, WIDEST_BOTTOM)
    if inverse is None:
        return None
    V = inverse.V.flip(1)
    scaled = double @ V
    S = torch.linalg.vector_norm(scaled, dim=0)
    return Triplets(scaled / S, S, V)


def _krylov(
    forth: Product,
    back: Product,
    residual: Callable[[Tensor, Tensor, Tensor], Tensor],
    like: Tensor,
    wanted: int,
    tolerance: float,
    widest: float,
) -> Triplets | None:
    """The first `wanted` triplets of an operator M by block Krylov iteration, or None where the check fails.

    The block is as wide as what is wanted, so that equal singular values are all found. Vectors are kept as rows: thin
    products of that shape run twice as fast. The random start has a fixed seed.

    Args:
        forth, back: `x M^T` and `y M` of rows x (k, in) and y (k, out).
        residual: of U, S, V as rows.
        like: a tensor (out, in) of M's type and device.
        widest: the most directions to look in, as a part of all.
    """
    height, width = like.shape
    limit = int(widest * width)
    basis = like.new_empty(limit, width)  # orthonormal rows
    image = like.new_empty(limit, height)  # basis @ M^T
    new = torch.randn(wanted, width, generator=torch.Generator().manual_seed(0)).to(like)
    check: float = FIRST_CHECK * wanted
    for size in range(wanted, limit, wanted):
        done = size - wanted
        for _ in range(2):  # in floating point once is not enough
            new = new - (new @ basis[:done].T) @ basis[:done]
        basis[done:size] = torch.linalg.qr(new.T).Q.T
        image[done:size] = forth(basis[done:size])
        if size >= check:
            found = _ritz(basis[:size], image[:size], wanted)
            error = _error(found, residual)
            if error <= tolerance:
                U, S, V = found
                return Triplets(U.T, S, V.T)
            check = size * _next_check(error, tolerance)
        new = back(image[done:size])
    return None


def _ritz(basis: Tensor, image: Tensor, wanted: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best U, S, V, as rows, in the span of `basis` (size, in), where `image = basis @ M^T`."""
    mix = torch.linalg.eigh(image @ image.T).eigenvectors[:, -wanted:].flip(1).T
    V, scaled = mix @ basis, mix @ image
    S = torch.linalg.vector_norm(scaled, dim=1)
    return scaled / S[:, None], S, V


def _error(found: tuple[Tensor, Tensor, Tensor], residual: Callable[[Tensor, Tensor, Tensor], Tensor]) -> float:
    """The residual, or the largest inner product of two vectors where that is larger."""
    V = found[2]
    skew = (V @ V.T - torch.eye(len(V), dtype=V.dtype, device=V.device)).abs().max()
    error = float(torch.maximum(residual(*found), skew))
    return error if math.isfinite(error) else 1.0  # a zero weight has no directions


def _next_check(error: float, tolerance: float) -> float:
    """By what factor the span should grow before another check: the error falls ever faster, a check is not free."""
    if error >= 1:
        return 2.0
    return min(2.0, 1 + 0.5 * math.log(error / tolerance) / math.log(1 / error))
