"""Rank capacity, measured: what rank a change of a weight can have for a number of trained parameters.

Lemma 3.1 of "Spectral Adapter" (arXiv 2405.13952): with as many trained parameters as a LoRA of rank r, the additive
adapter reaches rank 2r. Over random shapes and ranks, each method's factors are given random values, and the numerical
rank of the delta, in float64, is compared with the bound: LoRA min(r, n), additive min(2r, n), rotational min(r, n).
"""

from __future__ import annotations

from statistics import median

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spectral_fusion.spectral import additive_factors, all_triplets, rotational_factors
from theory.page import Data, Topic, paragraph

SHAPES = 100
BOUNDS = {
    "LoRA": "min(r, n)",
    "additive": "min(2r, n)",
    "additive and values": "min(2r, n)",
    "rotational": "min(r, n), 0 at r = 1",
    "rotational and values": "min(r, n)",
}
DRAWN = {"LoRA": "s", "additive": "o", "rotational": "^"}


def random(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def draw_shape(generator: torch.Generator) -> tuple[int, int, int, int]:
    """(out, in, r, first direction): sizes from 4 to 160, and any band that fits."""
    rows, columns = (int(n) for n in torch.randint(4, 161, (2,), generator=generator))
    directions = min(rows, columns)
    r = int(torch.randint(1, directions + 1, (1,), generator=generator))
    lo = int(torch.randint(0, directions - r + 1, (1,), generator=generator))
    return rows, columns, r, lo


def deltas(rows: int, columns: int, r: int, lo: int, generator: torch.Generator) -> dict[str, tuple[Tensor, int, int]]:
    """Method -> (delta, trained parameters, the rank that theory allows)."""
    U, S, V = all_triplets(random(rows, columns, generator=generator)).part(lo, lo + r)
    A, B = random(rows, r, generator=generator), random(columns, r, generator=generator)
    X_U, X_V = random(r, r, generator=generator), random(r, r, generator=generator)
    c, scale = random(r, generator=generator), 1 + random(r, generator=generator)
    n = min(rows, columns)
    pairs = {
        "LoRA": ((A, B.T), A.numel() + B.numel(), min(r, n)),
        "additive": (additive_factors(U, S, V, A, B), A.numel() + B.numel(), min(2 * r, n)),
        "additive and values": (additive_factors(U, S, V, A, B, c), A.numel() + B.numel() + r, min(2 * r, n)),
        # a rotation of one dimension is the identity
        "rotational": (rotational_factors(U, S, V, X_U, X_V), 2 * r * r, 0 if r == 1 else min(r, n)),
        "rotational and values": (rotational_factors(U, S, V, X_U, X_V, scale), 2 * r * r + r, min(r, n)),
    }
    return {name: (up @ down, count, bound) for name, ((up, down), count, bound) in pairs.items()}


def measure(shapes: int = SHAPES) -> Data:
    """Of each shape (out, in, r, first direction), and of each method (rank, bound, trained parameters)."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(shapes):
        shape = draw_shape(generator)
        found = deltas(*shape, generator)
        ranks = {name: [int(torch.linalg.matrix_rank(delta)), *rest] for name, (delta, *rest) in found.items()}
        rows.append({"shape": list(shape)} | {n: [rank, bound, count] for n, (rank, count, bound) in ranks.items()})
    return {"shapes": rows}


def draw(data: Data) -> Figure:
    """Measured ranks against r, and against the trained parameters."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for method, marker in DRAWN.items():
        ns = [min(row["shape"][:2]) for row in data["shapes"]]
        ranks = [row[method][0] for row in data["shapes"]]
        share = [row["shape"][2] / n for row, n in zip(data["shapes"], ns, strict=True)]
        left.plot(share, [rank / n for rank, n in zip(ranks, ns, strict=True)], marker, label=method, alpha=0.6)
        right.plot([row[method][2] for row in data["shapes"]], ranks, marker, label=method, alpha=0.6)
    x = np.linspace(0, 1, 101)
    left.plot(x, np.minimum(x, 1), color="grey", linewidth=0.8, label="bounds")
    left.plot(x, np.minimum(2 * x, 1), color="grey", linewidth=0.8)
    left.set(xlabel="r / n", ylabel="rank of the delta / n")
    right.set(xscale="log", xlabel="trained parameters", ylabel="rank of the delta")
    left.legend()
    right.legend()
    return figure


def tell(data: Data) -> str:
    rows = data["shapes"]
    lines = [
        "| method | rank equals the bound | bound | ranks per 1,000 trained, median |",
        "| --- | ---: | --- | ---: |",
    ]
    for method, bound in BOUNDS.items():
        equal = sum(row[method][0] == row[method][1] for row in rows)
        ratio = 1000 * median(row[method][0] / row[method][2] for row in rows)
        lines.append(f"| {method} | {equal} of {len(rows)} | {bound} | {ratio:.2f} |")
    text = f"""Lemma 3.1 of the paper, measured: at the same number of trained parameters as a LoRA the additive adapter
reaches twice its rank, until the weight has no more. {len(rows)} random shapes (out and in from 4 to 160, any r and
band that fit), random values in every trained tensor, the numerical rank of the delta in float64; n is the smaller
side. Left, each point is one shape, and the grey lines are min(r, n) and min(2r, n). Right, the rotational adapter
needs fewest parameters a rank, because it trains none of the weight's size."""
    return "\n".join([paragraph(text), "", *lines])


TOPIC = Topic(
    "rank-capacity",
    "Rank capacity",
    "at equal trained parameters an additive adapter has twice the rank of a LoRA (Lemma 3.1).",
    measure,
    draw,
    tell,
)
