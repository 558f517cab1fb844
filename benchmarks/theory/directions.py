"""Which singular directions a trained subject moves: the shipped concepts, seen from the weights that they change.

With `W = U S V^T` in full, a delta writes to the left direction i with the energy `|u_i^T delta|^2`, and reads from the
right one with `|delta v_i|^2`. What a delta has outside both spans, where a weight is not square, is counted apart.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spectral_fusion.spectral import Factors, Triplets
from theory.page import Data, Topic, paragraph

BINS = 20
SIDES = {"writes": "left directions: what the subject writes", "reads": "right directions: what it reads"}


def energies(factors: Factors, full: Triplets) -> dict[str, Tensor]:
    """Share of the delta's energy in each singular direction of the weight, by side; (n,), summing to 1 at most."""
    up, down = factors.up.double(), factors.down.double()
    total = ((up.T @ up) * (down @ down.T)).sum()
    left, right = full.U.double().T @ up, full.V.double().T @ down.T
    return {
        "writes": ((left @ (down @ down.T)) * left).sum(1) / total,
        "reads": ((right @ (up.T @ up)) * right).sum(1) / total,
    }


def binned(shares: Tensor, bins: int = BINS) -> list[float]:
    """Sums over `bins` equal parts of the spectrum, from the largest singular value on; (n,), n at least `bins`."""
    n = len(shares)
    part = (torch.arange(n) * bins) // n
    return torch.zeros(bins, dtype=shares.dtype).index_add(0, part, shares).tolist()


def measure() -> Data:
    """Of each shipped concept the mean over its layers: shares by part of the spectrum, and in its own band."""
    from spectral_fusion.base.load import open_base
    from spectral_fusion.concept import Library
    from spectral_fusion.spectral import all_triplets

    root = Path(__file__).resolve().parents[2] / "concepts"
    layers, library = open_base().layers(), Library(root)
    full: dict[str, Triplets] = {}
    rows = []
    for info in library.list():
        concept = library.get(info.name)
        sums: dict[str, list[list[float]]] = {side: [] for side in SIDES}
        own: dict[str, list[float]] = {side: [] for side in SIDES}
        for name in concept.layers:
            if name not in full:
                full[name] = all_triplets(layers[name].weight)
            for side, shares in energies(concept.factors(name), full[name]).items():
                sums[side].append(binned(shares))
                span = concept.band.within(len(shares))
                own[side].append(float(shares[span.start : span.stop].sum()))
        row = {"name": concept.name, "band": str(concept.band), "mode": concept.mode, "layers": len(concept.layers)}
        for side in SIDES:
            row[side] = [round(fmean(column), 5) for column in zip(*sums[side], strict=True)]
            row[f"own {side}"] = round(fmean(own[side]), 4)
        rows.append(row)
    widths = sorted({min(layers[name].weight.flatten(1).shape) for name in full})
    return {"concepts": rows, "directions": widths}


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (side, title) in zip(panels, SIDES.items(), strict=True):
        for row in data["concepts"]:
            bins = len(row[side])
            axes.plot([(i + 0.5) / bins for i in range(bins)], row[side], marker=".", label=row["name"])
        axes.axhline(1 / bins, color="grey", linewidth=0.8, linestyle="--", label="evenly")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("place in the spectrum: 0 largest, 1 smallest")
    panels[0].set(ylabel="share of the delta's energy, mean of layers", ylim=(0, None))
    panels[0].legend(fontsize=8)
    return figure


def tell(data: Data) -> str:
    rows = data["concepts"]
    lines = [
        "| concept | band | written in its own band | read from it | written in the top tenth | read from it |"
        " read from the bottom tenth | read outside the spectrum |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        tenth = len(row["reads"]) // 10
        cells = [row["own writes"], row["own reads"], sum(row["writes"][:tenth]), sum(row["reads"][:tenth])]
        cells += [sum(row["reads"][-tenth:]), max(0.0, 1 - sum(row["reads"]))]
        lines.append(f"| {row['name']} | {row['band']} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    mean = {key: fmean(row[key] for row in rows) for key in ("own writes", "own reads")}
    top = {side: fmean(sum(row[side][: len(row[side]) // 10]) for row in rows) for side in SIDES}
    end = {side: fmean(sum(row[side][-(len(row[side]) // 10) :]) for row in rows) for side in SIDES}
    text = f"""The {len(rows)} shipped concepts, trained on toybox128 with additive adapters in bands of its smallest
singular values, seen from the full spectrum of the weights that they change. An additive adapter is
anchored in its band and free to leave it: of a delta's energy {mean["own writes"]:.2f} is written in the concept's
own directions and {mean["own reads"]:.2f} is read from them, on average over concepts and layers. The top tenth of
the spectrum gets {top["writes"]:.2f} of what is written and gives {top["reads"]:.2f} of what is read; the bottom
tenth {end["writes"]:.2f} and {end["reads"]:.2f}; an even spread would be 0.10. Layers have
{", ".join(str(n) for n in data["directions"])} directions; what lies outside both spans, where a weight is not
square, is the last column. Nothing was trained for this page, and no concept of another method is compared."""
    return "\n".join([paragraph(text), "", *lines])


TOPIC = Topic(
    "moved-directions",
    "Which singular directions a subject moves",
    "the shipped concepts, seen from the weights that they change.",
    measure,
    draw,
    tell,
)
