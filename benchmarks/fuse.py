"""Fusing ten concepts of Stable Diffusion 1.5 size, beside reading and writing the adapted weights once.

    python benchmarks/fuse.py [--concepts 10] [--rounds 7] [--device cuda] [--dtype float16] [--small]

Both alternate in one process, so that a busy machine slows both; a figure is the median of its ratio to the copy in the
same round. The concepts are random, in disjoint bands. On a CPU with OMP_NUM_THREADS=1 the clock is that of the
processor, which other work hardly disturbs; with several threads it is the wall's, and wants a quiet machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sd15
from report import write_report
from spectral_fusion.base.attach import smallest_directions
from spectral_fusion.base.interface import Base
from spectral_fusion.base.merged import MergedWeights
from spectral_fusion.base.presets import ATTENTION
from spectral_fusion.concept import Concept, LayerTensors
from spectral_fusion.concept.fingerprint import weight_fingerprint
from spectral_fusion.concept.joint import joint_factors, measure_overlaps
from spectral_fusion.fusion import fuse
from spectral_fusion.spectral import Band, Triplets

RANK = 8


def make_concepts(base: Base, number: int) -> list[Concept]:
    """Random concepts whose bands are consecutive columns of random orthonormal matrices."""
    weights = {name: layer.weight for name, layer in base.layers().items() if name.endswith(ATTENTION)}
    prints = {name: weight_fingerprint(weight) for name, weight in weights.items()}
    layers: list[dict[str, LayerTensors]] = [{} for _ in range(number)]
    for name, weight in weights.items():
        U, V = (torch.linalg.qr(torch.randn(size, number * RANK)).Q for size in weight.shape)
        for i in range(number):
            columns = slice(i * RANK, (i + 1) * RANK)
            basis = Triplets(U[:, columns].contiguous(), torch.rand(RANK) + 1, V[:, columns].contiguous())
            trained = {"A": 0.01 * torch.randn(len(U), RANK), "B": 0.01 * torch.randn(len(V), RANK)}
            layers[i][name] = LayerTensors(basis, trained)
    return [
        Concept(
            name=f"c{i}",
            trigger=f"<c{i}>",
            class_word="thing",
            band=Band(i, RANK),
            mode="additive",
            base="0" * 16,
            family=base.family,
            directions=smallest_directions(weights.values()),
            fingerprints=prints,
            layers=layers[i],
            embeddings={part: torch.randn(2, text.embedding.weight.shape[1]) for part, text in base.texts.items()},
        )
        for i in range(number)
    ]


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cpu" and torch.get_num_threads() == 1:
        begin = time.process_time()
        work()
        return time.process_time() - begin
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begin


def measure(base: Base, concepts: list[Concept], rounds: int, device: str) -> dict[str, list[float]]:
    weights = {name: layer.weight for name, layer in base.layers().items() if name in concepts[0].layers}
    ones = dict.fromkeys(concepts, 1.0)

    def copy() -> list[Tensor]:
        return [weight.detach().clone() for weight in weights.values()]

    def deltas() -> MergedWeights:
        return MergedWeights(base, list(weights), lambda layer: joint_factors(ones, layer))

    operations = 4 * RANK * len(concepts) * sum(weight.numel() for weight in weights.values())
    large = torch.randn(2048, 2048, device=device, dtype=next(iter(weights.values())).dtype)

    taken: dict[str, list[float]] = {}
    for _ in range(rounds + 1):  # the first round warms up
        steps: dict[str, Callable[[], object]] = {"reading and writing the weights once": copy, "the sum alone": deltas}
        steps["measuring all overlaps"] = lambda: measure_overlaps(concepts)
        for name, work in steps.items():
            taken.setdefault(name, []).append(seconds(work, device))
        floor = seconds(lambda: large @ large, device) * operations / (2 * len(large) ** 3)
        taken.setdefault("the sum's arithmetic, at the speed of a large product", []).append(floor)
        fusions: list[Any] = []
        whole = seconds(lambda: fusions.append(fuse(base, ones)), device)  # noqa: B023  # called at once
        taken.setdefault("fuse: checks, overlaps, sum, tokens", []).append(whole)
        taken.setdefault("undo", []).append(seconds(fusions[0].undo, device))
    return {name: times[1:] for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--small", action="store_true", help="narrow models, nothing written")
    options = parser.parse_args()
    torch.manual_seed(0)
    base = sd15.base(options.device, getattr(torch, options.dtype), small=options.small)
    concepts = make_concepts(base, min(options.concepts, 8) if options.small else options.concepts)
    taken = measure(base, concepts, options.rounds, options.device)
    copies = next(iter(taken.values()))
    rows = [
        (
            name,
            f"{statistics.median(times):.3f}",
            f"{statistics.median(t / copy for t, copy in zip(times, copies, strict=True)):.2f}",
        )
        for name, times in taken.items()
    ]
    numbers = sum(len(layer.basis.U) * len(layer.basis.V) for layer in concepts[0].layers.values())
    remarks = f"""
{options.concepts} additive concepts at r={RANK} on all {len(concepts[0].layers)} attention projections of the Stable
Diffusion 1.5 UNet and text encoder: {numbers / 1e6:.0f} million weights in {options.dtype} on {options.device}. The sum
is one product of rank {2 * RANK * options.concepts} a layer: {4 * RANK * options.concepts} operations a weight,
which no way of adding dense weights can do without: its time at the speed of a 2048 x 2048 product is the floor.
"""
    name = "fuse" if options.device == "cpu" else "fuse-gpu"
    write_report(name, "Fusing", ("step", "seconds", "times the copy"), rows, remarks, save=not options.small)


if __name__ == "__main__":
    main()
