"""Preparing band 0 at r=8 for every attention projection of SD 1.5's UNet and text encoder.

    python benchmarks/svd.py [--small]

Three ways, in turn on each layer: a full SVD, ours with an empty cache, ours with a full one. Random
weights have a flat spectrum, the hardest case for an iteration; the second table gives the same weights the falling
spectrum of trained ones.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

import sd15
from report import write_report
from spectral_fusion.base.presets import ATTENTION
from spectral_fusion.spectral import Triplets, cached_triplets, leading_triplets

RANK = 8
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


def residual(weight: Tensor, triplets: Triplets) -> float:
    """Worst `|W v - s u|` and `|W^T u - s v|` of a triplet, over the largest singular value."""
    U, S, V = triplets
    left, right = weight @ V - U * S, weight.T @ U - V * S
    return float(max(torch.linalg.vector_norm(error, dim=0).max() for error in (left, right)) / S[0])


def compare(name: str, weights: list[Tensor]) -> list[list[object]]:
    """The table's rows for one set of weights; the ways take turns, so that a busy machine slows all alike."""
    with tempfile.TemporaryDirectory() as folder:

        def full(weight: Tensor) -> Triplets:
            return leading_triplets(weight, 0, RANK, method="full")

        def ours(weight: Tensor) -> Triplets:
            return cached_triplets(weight, 0, RANK, cache_dir=Path(folder))

        ways = {"full SVD": full, "ours, cold": ours, "ours, cached": ours}
        seconds, worst = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
        for weight in weights:
            for way, decompose in ways.items():
                start = time.perf_counter()
                triplets = decompose(weight)
                seconds[way] += time.perf_counter() - start
                worst[way] = max(worst[way], residual(weight, triplets))
    faster = {way: seconds["full SVD"] / seconds[way] for way in ways}
    return [[f"{name}: {way}", f"{seconds[way]:.2f}", f"{faster[way]:.1f}", f"{worst[way]:.1e}"] for way in ways]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--small", action="store_true", help="narrow models, for a quick look; writes no report")
    settings = parser.parse_args()
    weights = attention_weights(small=settings.small)
    rows = compare("random weights", weights)
    rows += compare("falling spectrum", [with_falling_spectrum(weight) for weight in weights])
    remarks = f"""Band 0 at r={RANK} of all {len(weights)} attention projections of the Stable Diffusion 1.5 UNet and of
CLIP ViT-L's text encoder. Random weights have a flat spectrum, in which neighbouring singular values differ by a
thousandth: the hardest case. "Falling spectrum" gives the same weights singular values that fall as the number to the
power of -{DECAY}, as those of trained weights roughly do. The residual is the worst of all triplets, over the largest
singular value of the layer; a full SVD in float32 is no more exact."""
    columns = ["weights: way", "seconds", "times faster", "worst residual"]
    write_report("svd", "Preparing a band", columns, rows, remarks, save=not settings.small)


if __name__ == "__main__":
    main()
