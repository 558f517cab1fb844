"""Routing: one matrix between the stacked factors of several deltas, so that each acts on its own inputs alone.

The closed form is that of "SSR-Merge" (ICML 2026, arXiv 2606.10617), with a ridge that pulls towards the plain sum.
Stack `up = [up_1 ... up_K]` (out, R) and `down` likewise (R, in), and let `z = down x`. For inputs of delta i, `P_i z`
is what delta i alone reads, P_i the projector onto its block of the R coordinates. Routing looks for the C (R, R) with

    sum_i E_i |C z - P_i z|^2  +  s * tr (C - I) M (C - I)^T     smallest,

where E_i is the mean over the inputs of delta i, `G_i = E_i[z z^T]`, and M is the block diagonal of `G = sum_i G_i`:

    C = (sum_i P_i G_i + s M) (G + s M)^-1,      delta = up C down.

Each block of M changes with the factors of its delta, so the result depends on the deltas and not on how they are
factored. `s = 0` is SSR-Merge without its ridge; with growing s, C tends to I, which is the plain sum.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spectral_fusion.errors import InputError
from spectral_fusion.spectral.factors import Factors, sum_factors

SHRINKAGE = 3.0  # below 1, pictures of the bundled base break: see docs/results/places.md
ROUNDING = 1e-10  # directions that hold less than this share of a Gram matrix are left to the plain sum


def routing_matrix(grams: Sequence[Tensor], ranks: Sequence[int], shrinkage: float = SHRINKAGE) -> Tensor:
    """C of the formula above, (R, R) in float64.

    Args:
        grams: `E_i[z z^T]` of each delta's own inputs, (R, R).
        ranks: of the deltas, in the order of the blocks; they add up to R.
        shrinkage: s, from 0 up; the larger, the nearer to the plain sum.

    Raises:
        InputError: shrinkage is negative or no number, or the sizes do not fit together.
    """
    total = sum(ranks)
    if not 0 <= shrinkage < float("inf"):
        raise InputError(f"shrinkage is {shrinkage}; give 0 (full routing) or more (nearer to the plain sum)")
    if len(grams) != len(ranks) or any(gram.shape != (total, total) for gram in grams):
        shapes = ", ".join(str(tuple(gram.shape)) for gram in grams)
        raise InputError(
            f"deltas of ranks {list(ranks)} need {len(ranks)} Gram matrices of {total} x {total}: {shapes}"
        )
    block = torch.arange(len(ranks)).repeat_interleave(torch.tensor(ranks))
    own = torch.zeros(total, total, dtype=torch.float64)  # sum_i P_i G_i: of each Gram matrix the rows of its own block
    gram = torch.zeros(total, total, dtype=torch.float64)
    for number, part in enumerate(grams):
        double = part.to("cpu", torch.float64)
        own[block == number] += double[block == number]
        gram += double
    scale = gram.diagonal().mean()
    if scale == 0:  # nothing was seen
        return torch.eye(total, dtype=torch.float64)
    ridge = shrinkage * gram * (block[:, None] == block[None, :])
    ridge += ROUNDING * scale * torch.eye(total, dtype=torch.float64)
    return torch.linalg.solve(gram + ridge, own + ridge, left=False)


def route_factors(parts: Sequence[Factors], grams: Sequence[Tensor], shrinkage: float = SHRINKAGE) -> Factors:
    """`up C down` of some deltas as factors of rank R, in the type of the parts.

    Args:
        parts: the deltas, weights included; grams: as for `routing_matrix`, of `z = down x` with the parts' own `down`.
    """
    joint = sum_factors(parts)
    C = routing_matrix(grams, [len(part.down) for part in parts], shrinkage)
    return Factors((joint.up.double() @ C.to(joint.up.device)).to(joint.up.dtype), joint.down)
