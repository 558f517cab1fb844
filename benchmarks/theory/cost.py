"""What the decomposition costs, by model, and what it saves.

Bytes follow from the shapes. Seconds of SD 1.5 are those of docs/results/svd.md, and what a step saves is in
docs/results/adapter_step_cpu_64.md; the other models are measured here, each shape once, and counted as often as it
occurs. Weights are random with 64 large directions, as trained ones have; times are processor time.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spectral_fusion.spectral import Band, cached_triplets
from theory.page import Data, Topic, paragraph

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
SPIKES = 64  # directions that stand out
FLOAT = 4  # bytes

Shape = tuple[int, int]


@dataclass(frozen=True)
class Model:
    """Shapes of the adapted weights, and how many there are of each; at which rank."""

    name: str
    rank: int
    shapes: Counter[Shape]


def transformer(name: str, rank: int, blocks: int, width: int, kv: int, inner: int, gates: int) -> Model:
    """All linear layers of a language model's blocks. gates: how many matrices go up to the inner width."""
    shapes: Counter[Shape] = Counter()
    for shape, count in (((width, width), 2), ((kv, width), 2), ((inner, width), gates), ((width, inner), 1)):
        shapes[shape] += count * blocks
    return Model(name, rank, shapes)


def models() -> list[Model]:
    """Those that are measured here; the shapes are those of the models' published configurations."""
    from spectral_fusion.base.load import open_base
    from spectral_fusion.base.presets import ATTENTION

    layers = open_base("toybox").layers().items()
    toybox = Counter(tuple(layer.weight.flatten(1).shape) for name, layer in layers if name.endswith(ATTENTION))
    return [
        Model("toybox, attention", 4, toybox),
        transformer("DeBERTa-v3-base, all linear", 24, 12, 768, 768, 3072, 1),
        transformer("Mistral 7B and Llama 3 8B, all linear", 8, 32, 4096, 1024, 14336, 2),
    ]


def make_weight(shape: Shape) -> Tensor:
    """(out, in): random, with `SPIKES` directions up to ten times as strong as the rest."""
    source = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=source) / sum(shape) ** 0.5
    k = min(SPIKES, *shape)
    U, V = (torch.linalg.qr(torch.randn(side, k, generator=source)).Q for side in shape)
    return weight + (U * torch.linspace(10, 1, k)) @ V.T


def seconds(shape: Shape, rank: int) -> tuple[float, float]:
    """Processor seconds of the first band from the top: with an empty cache, and from then on."""
    weight, span, took = make_weight(shape), Band(0, rank).within(min(shape)), []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            start = time.process_time()
            cached_triplets(weight, span.start, span.stop, cache_dir=Path(folder))
            took.append(time.process_time() - start)
    return took[0], took[1]


def sizes(shapes: dict[Shape, int] | Counter[Shape], rank: int) -> dict[str, float]:
    """Megabytes in float32: of the weights, of U, S and V in full, of the band, and of what is trained beside it."""
    weights = sum(n * out * width for (out, width), n in shapes.items())
    full = sum(n * min(s) * (s[0] + s[1] + 1) for s, n in shapes.items())
    band = sum(n * rank * (s[0] + s[1] + 1) for s, n in shapes.items())
    trained = sum(n * rank * (s[0] + s[1]) for s, n in shapes.items())
    parts = {"weights": weights, "full": full, "band": band, "trained": trained}
    return {name: round(FLOAT * numbers / 1e6, 3) for name, numbers in parts.items()}


def measure() -> Data:
    rows = [sd15_row()]
    for model in models():
        found = {shape: seconds(shape, model.rank) for shape in model.shapes}
        cold, cached = (sum(n * found[s][i] for s, n in model.shapes.items()) for i in (0, 1))
        row = {"model": model.name, "r": model.rank, "layers": model.shapes.total()}
        rows.append(row | {"cold": round(cold, 3), "cached": round(cached, 3)} | sizes(model.shapes, model.rank))
    return {"models": rows, "steps": {name: table_row("adapter_step_cpu_64", name) for name in STEPS}}


STEPS = ("LoRA", "additive", "dense reference")


def table_row(report: str, name: str) -> list[float]:
    """The numbers of one row of a table in docs/results."""
    for line in (RESULTS / f"{report}.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == name:
            return [float(cell.replace(",", "")) for cell in cells[1:]]
    raise KeyError(name)


def sd15_row() -> dict[str, object]:
    from svd import attention_shapes

    shapes = attention_shapes(small=False)
    _, float32, cold, cached, *_ = table_row("svd", "falling, top: SD 1.5")
    row: dict[str, object] = {"model": "SD 1.5, attention", "r": 8, "layers": shapes.total()}
    return row | {"cold": cold, "cached": cached, "svd32": float32} | sizes(shapes, 8)


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [row["model"].replace(", ", "\n") for row in data["models"]]
    places = list(range(len(names)))
    for axes, keys, label in (
        (left, {"cold": "empty cache", "cached": "cached"}, "seconds for all layers"),
        (right, {"full": "U, S, V in full", "band": "the band", "trained": "what is trained"}, "MB, float32"),
    ):
        width = 0.8 / len(keys)
        for number, (key, title) in enumerate(keys.items()):
            xs = [place + width * (number - (len(keys) - 1) / 2) for place in places]
            axes.bar(xs, [row[key] for row in data["models"]], width, label=title)
        axes.set_yscale("log")
        axes.set_xticks(places, names, fontsize=6)
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    return figure


def tell(data: Data) -> str:
    lines = [
        "| model | r | layers | cold, s | cached, s | weights, MB | U, S, V in full, MB | band, MB | trained, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in data["models"]:
        cells = [f"{row[key]:.3g}" for key in ("cold", "cached")]
        cells += [f"{row[key]:,.1f}" for key in ("weights", "full", "band", "trained")]
        lines.append(f"| {row['model']} | {row['r']} | {row['layers']} | " + " | ".join(cells) + " |")
    sd, (_, additive, *_), (_, dense, *_) = (
        data["models"][0],
        data["steps"]["additive"],
        data["steps"]["dense reference"],
    )
    memory = data["steps"]["dense reference"][3] - data["steps"]["additive"][3]
    text = f"""A spectral adapter needs the band's singular vectors before its first step. On SD 1.5 that costs
{sd["cold"]:.2g} s of one core the first time ({sd["svd32"]:.3g} s by full SVDs in float32) and {sd["cached"]:.2g} s
ever after; a concept file holds the band, so that loading and fusing cost none. What it saves: the authors' code
keeps U, S and V of every layer and rebuilds each weight at each forward, {sd["full"]:,.0f} MB where the band has
{sd["band"]:.0f} MB, and a training step of {dense:.1f} s where ours takes {additive:.1f} s, with {memory:,.0f} MiB
more memory. The first step has paid for the decomposition. The other side of the account: a LoRA needs no band at
all, and its files are smaller by it. Times of SD 1.5 are from `../results/svd.md` (first band from the top, falling
spectrum), those of steps from `../results/adapter_step_cpu_64.md`. The other models are measured here with random
weights that have {SPIKES} large directions, each shape once, while other work ran on the machine: processor seconds,
good to a few tenths of their value. A flat spectrum or a bottom band costs several times as much, see
`../results/svd.md`."""
    return "\n".join([paragraph(text), "", *lines])


TOPIC = Topic(
    "svd-cost",
    "What the SVD costs, and what it saves",
    "seconds and bytes by model, with an empty cache and with a full one.",
    measure,
    draw,
    tell,
)
