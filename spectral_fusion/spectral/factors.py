"""What a trained adapter adds to a weight, as a product of two thin matrices.

The formulas are those of Zhang and Pilanci, "Spectral Adapter: Fine-Tuning in Spectral Space" (NeurIPS 2024,
arXiv 2405.13952), section 3, multiplied out. Written as in the paper, `U' S' V'^T - U S V^T`, they subtract two
matrices of the weight's size to get a small one: that costs memory in every step and, in half precision, most digits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """A low-rank update of a weight: `delta = up @ down`.

    up: (out, k); down: (k, in).
    """

    up: Tensor
    down: Tensor


def sum_factors(parts: Sequence[Factors]) -> Factors:
    """The factors of a sum of deltas, side by side: their ranks add up. `parts` is not empty."""
    if len(parts) == 1:  # a cat of one tensor would copy it
        return parts[0]
    return Factors(torch.cat([part.up for part in parts], dim=1), torch.cat([part.down for part in parts]))


def add_factors(weight: Tensor, factors: Factors) -> Tensor:
    """`weight + up @ down`, computed in float32, in the weight's shape, type and place."""
    up, down = (part.to(weight.device) for part in factors)
    return torch.addmm(weight.flatten(1).float(), up, down).view(weight.shape).to(weight.dtype)


def additive_factors(U: Tensor, S: Tensor, V: Tensor, A: Tensor, B: Tensor, c: Tensor | None = None) -> Factors:
    """`(U + A) diag(S + c) (V + B)^T - U diag(S) V^T`, the paper's Spectral Adapter^A, at rank 2r.

    Args:
        U, S, V: the frozen band; (out, r), (r,), (in, r).
        A, B: trained shifts of the singular vectors, zero at the start; (out, r), (in, r).
        c: trained shift of the singular values, zero at the start; (r,). None: the values stay.
    """
    moved = V + B
    if c is None:
        scaled, rest = moved * S, B * S
    else:
        scaled, rest = moved * (S + c), moved * c + B * S
    return Factors(torch.cat([A, U], dim=1), torch.cat([scaled, rest], dim=1).T)


def rotational_factors(U: Tensor, S: Tensor, V: Tensor, X_U: Tensor, X_V: Tensor, c: Tensor | None = None) -> Factors:
    """`U (R_U diag(S * c) R_V^T - diag(S)) V^T`, the paper's Spectral Adapter^R, at rank r.

    With `R = I + E` (see `cayley_minus_identity`) the core is `E_U D + D E_V^T + E_U D E_V^T + diag(S * c - S)`,
    `D = diag(S * c)`: no term cancels, and at the start every term is exactly zero.

    Args:
        U, S, V: the frozen band; (out, r), (r,), (in, r).
        X_U, X_V: trained generators of the two rotations, zero at the start; (r, r).
        c: trained scale of the singular values, one at the start; (r,). None: the values stay.
    """
    E_U, E_V = cayley_minus_identity(torch.stack([X_U, X_V])).unbind()
    D = S if c is None else S * c
    turned = E_U * D
    core = turned + D[:, None] * E_V.T + turned @ E_V.T
    if c is not None:
        core = core + torch.diag(S * (c - 1))
    return Factors(U @ core, V.T)


def cayley_minus_identity(X: Tensor) -> Tensor:
    """`R - I` of the Cayley map `R = (I - K)(I + K)^-1`, `K = (X - X^T) / 2`; exactly zero where X is zero.

    R is orthogonal for every X. The two factors commute, so one solve gives `R - I = (I + K)^-1 (-2K)`.

    X: (..., r, r). Returns (..., r, r).
    """
    K = (X - X.mT) / 2
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    # I + K is never singular, so nothing is checked: a check would make a GPU wait
    return torch.linalg.solve_ex(identity + K, -2 * K).result
