"""Rank capacity, measured: what rank a change of a weight can have for a number of trained parameters.

    python benchmarks/rank_capacity.py [--save]

Lemma 3.1 of "Spectral Adapter" (arXiv 2405.13952): with as many trained parameters as a LoRA of rank r, the additive
adapter reaches rank 2r. Over random shapes and ranks, each method's factors are given random values, and the numerical
rank of the delta, in float64, is compared with the bound: LoRA min(r, n), additive min(2r, n), rotational min(r, n).
"""

import argparse
from collections import Counter

import torch
from torch import Tensor

from report import RESULTS, machine
from spectral_fusion.spectral import additive_factors, all_triplets, rotational_factors

SHAPES = 100
BOUNDS = {
    "LoRA": "min(r, n)",
    "additive": "min(2r, n)",
    "additive and values": "min(2r, n)",
    "rotational": "min(r, n), 0 at r = 1",
    "rotational and values": "min(r, n)",
}
METHODS = tuple(BOUNDS)
REMARKS = f"""Lemma 3.1 of the paper, measured: at the same number of trained parameters as a LoRA the additive adapter
reaches twice its rank. {SHAPES} random shapes (out and in from 4 to 160, any r and band that fit), random values in
every trained tensor, the numerical rank of the delta in float64; n is the smaller side."""


def random(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def draw(generator: torch.Generator) -> tuple[int, int, int, int]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--save", action="store_true", help="write docs/results/rank-capacity.md")
    settings = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    equal: Counter[str] = Counter()
    ratio: dict[str, list[float]] = {method: [] for method in METHODS}
    odd = []
    for _ in range(SHAPES):
        shape = draw(generator)
        for method, (delta, count, bound) in deltas(*shape, generator).items():
            rank = int(torch.linalg.matrix_rank(delta))
            equal[method] += rank == bound
            ratio[method].append(rank / count)
            if rank != bound:
                odd.append(f"{method}, {shape}: rank {rank}, bound {bound}")
    heading = "| method | rank equals the bound | bound | ranks per 1,000 trained, median |"
    lines = ["# Rank capacity", "", heading, "| --- | ---: | --- | ---: |"]
    for method in METHODS:
        median = 1000 * float(torch.tensor(ratio[method]).median())
        lines.append(f"| {method} | {equal[method]} of {SHAPES} | {BOUNDS[method]} | {median:.2f} |")
    lines += ["", REMARKS, "", *(f"* {line}" for line in odd), *([""] if odd else []), f"{machine()}.", ""]
    text = "\n".join(lines)
    print(text)
    if settings.save:
        (RESULTS / "rank-capacity.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
