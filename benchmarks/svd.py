"""Preparing bands at r=8 for every attention projection of SD 1.5's UNet and text encoder.

    python benchmarks/svd.py [--small]

Band 0 from the top, band 0 from the bottom, and one in the middle, each in four ways in turn on each layer: a full SVD
in float32 and in float64, ours with an empty cache, ours with a full one. Random weights have a flat spectrum, the
hardest case for an iteration; the second half of the table gives the same weights the falling spectrum of trained ones.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import sd15
from report import write_report
from spectral_fusion.base.presets import ATTENTION
from spectral_fusion.spectral import Band, Triplets, cached_triplets

RANK = 8
PLACES = ("top", "bottom", "middle")
DECAY = 0.5  # singular value number i is proportional to (i + 1) ** -DECAY


def attention_weights(*, small: bool) -> list[Tensor]:
    """The weights of all attention projections, in the order of the modules."""
    models = sd15.unet(small=small), sd15.text_encoder(small=small)
    modules = (module for model in models for name, module in model.named_modules() if name.endswith(ATTENTION))
    return [module.weight.detach() for module in modules]


def with_falling_spectrum(weight: Tensor) -> Tensor:
    """The weight with its singular vectors and a power law for singular values; (out, in)."""
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    return U * (S[0] * torch.arange(1, len(S) + 1) ** -DECAY) @ Vh


def error(exact: Triplets, found: Triplets) -> float:
    """Sine of the largest angle between the two bands' spans, on either side."""
    return max(
        float(torch.linalg.matrix_norm(b.double() - a @ (a.T @ b.double()), ord=2))
        for a, b in ((exact.U, found.U), (exact.V, found.V))
    )


def full(weight: Tensor, span: range, dtype: torch.dtype) -> Triplets:
    U, S, Vh = torch.linalg.svd(weight.to(dtype), full_matrices=False)
    return Triplets(U, S, Vh.T).part(span.start, span.stop)


def compare(name: str, weights: list[Tensor], place: str) -> list[list[object]]:
    """The table's rows for one set of weights; the ways take turns, so that a busy machine slows all alike."""
    with tempfile.TemporaryDirectory() as folder:

        def ours(weight: Tensor, span: range) -> Triplets:
            return cached_triplets(weight, span.start, span.stop, cache_dir=Path(folder))

        ways: dict[str, Callable[[Tensor, range], Triplets]] = {
            "SVD in float64": lambda weight, span: full(weight, span, torch.float64),
            "SVD in float32": lambda weight, span: full(weight, span, torch.float32),
            "ours, cold": ours,
            "ours, cached": ours,
        }
        seconds, worst = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
        for weight in weights:
            directions = min(weight.shape)
            middle = Band(directions // RANK // 2, RANK)
            span = {"top": Band(0, RANK), "bottom": Band(0, RANK, "bottom"), "middle": middle}[place].within(directions)
            exact = ways["SVD in float64"](weight, span)
            for way, decompose in ways.items():
                start = time.perf_counter()
                found = decompose(weight, span)
                seconds[way] += time.perf_counter() - start
                worst[way] = max(worst[way], error(exact, found))
    slow = [seconds[way] for way in ("SVD in float64", "SVD in float32")]
    return [
        [f"{name}, {place}: {way}", f"{taken:.2f}", *(f"{other / taken:.1f}" for other in slow), f"{worst[way]:.0e}"]
        for way, taken in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--small", action="store_true", help="narrow models, for a quick look; writes no report")
    settings = parser.parse_args()
    weights = attention_weights(small=settings.small)
    sets = {"flat": weights, "falling": [with_falling_spectrum(weight) for weight in weights]}
    rows = [row for name, members in sets.items() for place in PLACES for row in compare(name, members, place)]
    remarks = f"""One band at r={RANK} of all {len(weights)} attention projections of the Stable Diffusion 1.5 UNet and
of CLIP ViT-L's text encoder: the first from the top, the first from the bottom, and one in the middle, which takes a
full decomposition the first time and serves its neighbours from then on. Random weights have a flat spectrum, in which
neighbouring singular values differ by a thousandth: the hardest case. "Falling" gives the same weights singular values
that fall as the number to the power of -{DECAY}, as those of trained weights roughly do. The error is the sine of the
largest angle between the band and that of a full SVD in float64, the worst of all layers. At the bottom values lie so
close, relative to the largest, that a full SVD in float32 turns a band, and two machines would not agree on it."""
    columns = ["weights: way", "seconds", "times faster than float64", "than float32", "worst error"]
    write_report("svd", "Preparing bands", columns, rows, remarks, save=not settings.small)


if __name__ == "__main__":
    main()
