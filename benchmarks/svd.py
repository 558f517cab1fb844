"""Preparing bands at r=8 for every attention projection of SD 1.5, and at the bottom for those of SDXL.

    python benchmarks/svd.py [--small]
    python benchmarks/svd.py --klein      # those of FLUX.2-klein alone, printed: large layers, a quarter of an hour

Band 0 from the top, band 0 from the bottom, and one in the middle, each in four ways in turn on a weight of each shape:
a full SVD in float32 and in float64, ours with an empty cache, ours with a full one. Random weights have a flat
spectrum, the hardest case for an iteration; the other half of the table gives the same weights the falling spectrum of
trained ones. Times are processor time, so that a busy machine slows all alike.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import sd15
from report import write_report
from spectral_fusion.base.presets import ATTENTION
from spectral_fusion.spectral import Band, Triplets, cached_triplets

RANK, ROUNDS = 8, 3
PLACES = ("top", "bottom", "middle")
WAYS = ("SVD in float64", "SVD in float32", "ours, cold", "ours, cached")
DECAY = 0.5  # singular value number i is multiplied by (i + 1) ** -DECAY
SDXL = {(640, 2048): 20, (1280, 2048): 120, (640, 640): 60, (1280, 1280): 488, (768, 768): 48}
"""How many attention projections of SDXL's UNet and text encoders have which shape; all but two shapes are SD 1.5's."""
KLEIN = {(3072, 3072): 40, (27648, 3072): 20, (3072, 12288): 20}
"""The same of FLUX.2-klein 4B: five joint blocks, and twenty with one product for attention and feed-forward."""

Shape = tuple[int, int]


def attention_shapes(*, small: bool) -> Counter[Shape]:
    """How many attention projections of SD 1.5 have which shape."""
    with torch.device("meta"):
        models = sd15.unet(small=small), sd15.text_encoder(small=small)
    modules = (module for model in models for name, module in model.named_modules() if name.endswith(ATTENTION))
    return Counter(tuple(module.weight.shape) for module in modules)


def make_weight(shape: Shape, spectrum: str) -> Tensor:
    """(out, in): random, or with singular values that fall off as trained ones do."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / shape[1] ** 0.5
    if spectrum == "flat":
        return weight
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    return U * (S * torch.arange(1, len(S) + 1) ** -DECAY) @ Vh


def error(exact: Triplets, found: Triplets) -> float:
    """Sine of the largest angle between the two bands' spans, on either side."""
    return max(
        float(torch.linalg.matrix_norm(b.double() - a @ (a.T @ b.double()), ord=2))
        for a, b in ((exact.U, found.U), (exact.V, found.V))
    )


def full(weight: Tensor, span: range, dtype: torch.dtype) -> Triplets:
    U, S, Vh = torch.linalg.svd(weight.to(dtype), full_matrices=False)
    return Triplets(U, S, Vh.T).part(span.start, span.stop)


def measure(weight: Tensor, place: str) -> dict[str, tuple[float, float]]:
    """Seconds, the least of the rounds, and error of each way on one weight."""
    directions = min(weight.shape)
    middle = Band(directions // RANK // 2, RANK)
    span = {"top": Band(0, RANK), "bottom": Band(0, RANK, "bottom"), "middle": middle}[place].within(directions)
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    found: dict[str, Triplets] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:

            def ours(cache: str = folder) -> Triplets:
                return cached_triplets(weight, span.start, span.stop, cache_dir=Path(cache))

            jobs: list[Callable[[], Triplets]] = [
                lambda: full(weight, span, torch.float64),
                lambda: full(weight, span, torch.float32),
                ours,
                ours,
            ]
            for way, job in zip(WAYS, jobs, strict=True):
                start = time.process_time()
                found[way] = job()
                taken[way].append(time.process_time() - start)
    return {way: (min(taken[way]), error(found[WAYS[0]], found[way])) for way in WAYS}


def row(name: str, figures: dict[str, list[tuple[float, float]]], counts: list[int]) -> list[object]:
    """One line: seconds over all layers, how many times faster ours is, and the worst errors."""
    seconds = {way: sum(n * s for n, (s, _) in zip(counts, figures[way], strict=True)) for way in WAYS}
    worst = {way: max(e for _, e in figures[way]) for way in WAYS}
    ratios = [f"{seconds[way] / seconds['ours, cold']:.1f}" for way in WAYS[:2]]
    times = [f"{seconds[way]:.3g}" for way in WAYS]
    return [name, *times, *ratios, f"{worst['SVD in float32']:.0e}", f"{worst['ours, cold']:.0e}"]


def print_klein() -> None:
    """The lowest band of FLUX.2-klein's layers, each shape measured once, on weights of a flat spectrum."""
    measured = {}
    for shape, count in KLEIN.items():
        measured[shape] = measure(make_weight(shape, "flat"), "bottom")
        print(*row(f"flat, bottom: {shape[0]} x {shape[1]}, {count} of them", _alone(measured[shape]), [1]), sep=" | ")
    figures = {way: [measured[shape][way] for shape in KLEIN] for way in WAYS}
    print(*row("flat, bottom: FLUX.2-klein", figures, list(KLEIN.values())), sep=" | ")


def _alone(one: dict[str, tuple[float, float]]) -> dict[str, list[tuple[float, float]]]:
    return {way: [one[way]] for way in WAYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--small", action="store_true", help="narrow models, for a quick look; writes no report")
    parser.add_argument("--klein", action="store_true", help="only FLUX.2-klein's layers; writes no report")
    settings = parser.parse_args()
    if settings.klein:
        return print_klein()
    counts = attention_shapes(small=settings.small)
    rows, single = [], []
    for spectrum in ("flat", "falling"):
        weights = {shape: make_weight(shape, spectrum) for shape in counts}
        for place in PLACES:
            measured = {shape: measure(weight, place) for shape, weight in weights.items()}
            figures = {way: [measured[shape][way] for shape in counts] for way in WAYS}
            rows.append(row(f"{spectrum}, {place}: SD 1.5", figures, list(counts.values())))
            if place == "bottom":
                measured |= {s: measure(make_weight(s, spectrum), place) for s in SDXL if s not in measured}
                figures = {way: [measured[shape][way] for shape in SDXL] for way in WAYS}
                rows.append(row(f"{spectrum}, {place}: SDXL", figures, list(SDXL.values())))
                for shape, one in measured.items():
                    name = f"{spectrum}, {place}: {shape[0]} x {shape[1]}"
                    single.append(row(name, _alone(one), [1]))
    remarks = f"""One band at r={RANK}: the first from the top, the first from the bottom, and one in the middle, which
takes a full decomposition the first time and serves its neighbours from then on. "SD 1.5" are all {counts.total()}
attention projections of its UNet and of CLIP ViT-L's text encoder, each shape measured once and counted as often as it
occurs; "SDXL" are all {sum(SDXL.values())} of its UNet and both text encoders.
Random weights have a flat spectrum, in which neighbouring singular values differ by a thousandth: the hardest
case. "Falling" multiplies the values by their number to the power of -{DECAY}. toybox's trained weights look like that:
the largest value is several times the median, and the smallest is near zero where the weight is square. Processor
seconds, the least of {ROUNDS} rounds. The error is the sine of the largest angle between the band and that of a full
SVD in float64, the worst of all layers. At the bottom of square weights, values lie so close, relative to the largest,
that a full SVD in float32 turns a band, and two machines would not agree on it: ours is found in float64 there."""
    columns = [
        *("weights", *(f"{way}, s" for way in WAYS)),
        *("cold: times faster than float64", "than float32", "error of float32", "of ours"),
    ]
    write_report("svd", "Preparing bands", columns, rows + single, remarks, save=not settings.small)


if __name__ == "__main__":
    main()
