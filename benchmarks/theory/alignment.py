"""Subspace alignment: does the top of a trained weight's spectrum hold the directions that the data has?

Figure 3 and Lemma 4.1 of "Spectral Adapter" (arXiv 2405.13952) say that the top singular vector of a pretrained weight
recognises a more ideal neuron direction than its neurons do. Here `y = sum_k relu(x . w_k) + noise` with orthonormal
planted `w_k`, and a two-layer ReLU network is trained on it from scratch. All seeds train side by side in one tensor.
"""

from __future__ import annotations

from statistics import fmean

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from theory.page import Data, Topic, paragraph

INPUTS, HIDDEN = 32, 64
EXAMPLES = (48, 192, 768, 3072)
PLANTED = (1, 4)
SEEDS, STEPS, RATE, NOISE = 10, 500, 1e-2, 0.5
SPANS = {
    "top": "top singular vectors",
    "largest": "largest neurons",
    "random": "neurons at random",
    "bottom": "bottom singular vectors",
}


def train(examples: int, planted: int, steps: int = STEPS, seeds: int = SEEDS) -> tuple[Tensor, Tensor]:
    """The first layer (seeds, HIDDEN, INPUTS) of trained networks, and the planted directions (seeds, INPUTS, k)."""
    source = torch.Generator().manual_seed(1000 * planted + examples)

    def draw(*shape: int) -> Tensor:
        return torch.randn(seeds, *shape, generator=source)

    wanted = torch.linalg.qr(draw(INPUTS, planted)).Q
    x = draw(examples, INPUTS)
    y = (x @ wanted).relu().sum(2) + NOISE * draw(examples)
    first = (draw(HIDDEN, INPUTS) / INPUTS**0.5).requires_grad_()
    last = (draw(HIDDEN) / HIDDEN**0.5).requires_grad_()
    optimizer = torch.optim.Adam([first, last], lr=RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        out = ((x @ first.transpose(1, 2)).relu() @ last[:, :, None])[:, :, 0]
        F.mse_loss(out, y, reduction="none").mean(1).sum().backward()
        optimizer.step()
    return first.detach(), wanted


def alignment(directions: Tensor, wanted: Tensor) -> float:
    """How much of the planted directions (in, k) lies in the span of `directions` (in, k): 0 to 1, root mean square."""
    span = torch.linalg.qr(directions).Q
    return float((torch.linalg.matrix_norm(span.T @ wanted) / wanted.shape[1] ** 0.5).clamp(max=1))


def spans(weight: Tensor, k: int) -> dict[str, Tensor]:
    """k directions of a first layer (hidden, in), chosen in each of the ways of `SPANS`; (in, k)."""
    V = torch.linalg.svd(weight, full_matrices=False).Vh.T
    order = torch.linalg.vector_norm(weight, dim=1).argsort(descending=True)
    some = torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))[:k]
    return {"top": V[:, :k], "largest": weight[order[:k]].T, "random": weight[some].T, "bottom": V[:, -k:]}


def measure(examples: tuple[int, ...] = EXAMPLES, steps: int = STEPS, seeds: int = SEEDS) -> Data:
    """Of each number of planted directions and of examples, the alignments of each seed by way."""
    rows = []
    for planted in PLANTED:
        for count in examples:
            weights, wanted = train(count, planted, steps, seeds)
            found: dict[str, list[float]] = {way: [] for way in SPANS}
            for weight, own in zip(weights, wanted, strict=True):
                for way, span in spans(weight, planted).items():
                    found[way].append(round(alignment(span, own), 4))
            rows.append({"planted": planted, "examples": count} | found)
    return {"rows": rows, "steps": steps}


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, len(PLANTED), sharey=True)
    for axes, planted in zip(panels, PLANTED, strict=True):
        rows = [row for row in data["rows"] if row["planted"] == planted]
        for way, title in SPANS.items():
            xs = [row["examples"] for row in rows]
            axes.plot(xs, [fmean(row[way]) for row in rows], marker="o", label=title)
            axes.fill_between(xs, [min(row[way]) for row in rows], [max(row[way]) for row in rows], alpha=0.15)
        axes.axhline((planted / INPUTS) ** 0.5, color="grey", linewidth=0.8, linestyle="--", label="chance")
        axes.set_xscale("log")
        axes.set_xticks([row["examples"] for row in rows], [str(row["examples"]) for row in rows])
        axes.set_title(f"{planted} planted, {planted} taken")
        axes.set_xlabel("training examples")
    panels[0].set(ylabel="alignment with what was planted", ylim=(0, 1.02))
    panels[0].legend(fontsize=8)
    return figure


def tell(data: Data) -> str:
    def mean(planted: int, examples: int, way: str) -> float:
        (row,) = [r for r in data["rows"] if (r["planted"], r["examples"]) == (planted, examples)]
        return fmean(row[way])

    counts = [row["examples"] for row in data["rows"] if row["planted"] == 1]
    few, most = counts[0], counts[-1]
    wins = sum(a > b for row in data["rows"] for a, b in zip(row["top"], row["largest"], strict=True))
    total = sum(len(row["top"]) for row in data["rows"])
    figures = {
        planted: ", ".join(f"{title} {mean(planted, most, way):.2f}" for way, title in SPANS.items())
        for planted in PLANTED
    }
    text = f"""Figure 3 and Lemma 4.1 of the paper say that the top singular vector of a pretrained weight is a better
guess of the direction that the data asks for than its neurons are. The setting is ours: a two-layer ReLU network
({INPUTS} inputs, {HIDDEN} hidden neurons, Adam, {data["steps"]} steps, no weight decay) learns from scratch what one
or four planted neurons say of random inputs, with noise of standard deviation {NOISE}. The alignment is how much of
the planted directions lies in the span of as many directions of the trained first layer. With {most} examples and one
planted direction: {figures[1]}; with four: {figures[4]}. With {few} examples the top vector of one planted direction
reaches {mean(1, few, "top"):.2f}, the largest neuron {mean(1, few, "largest"):.2f}. The top span is nearer than that
of the largest neurons in {wins} of {total} trainings. Means of {len(data["rows"][0]["top"])} seeds; bands from the
least to the most. A single planted task is the lemma's case, not a language model."""
    return paragraph(text)


TOPIC = Topic(
    "subspace-alignment",
    "Subspace alignment",
    "the top singular vectors of a trained layer against its neurons (Figure 3, Lemma 4.1).",
    measure,
    draw,
    tell,
)
