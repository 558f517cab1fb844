"""A library of thousands of concepts: seconds to list it, to search it, and for the overlap of one with all.

    python benchmarks/large_library.py [--concepts 5000] [--folder out/large-library] [--layers 128]

The concepts are random, of rank 4 on 128 layers of 64 directions, all on one base: 16 bands, each had by some three
hundred, which is the worst case for overlaps. They are made once (1.7 GB) and kept under `--folder`. Each figure is
that of one command, Python's own start in it; on a busy machine only the processor's clock says much.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from spectral_fusion.concept import Concept, LayerTensors
from spectral_fusion.concept.index import INDEX
from spectral_fusion.spectral import Band, Triplets

RANK, WIDTH = 4, 64
BASE = "0" * 16


def make_concepts(layers: int) -> list[Concept]:
    """One random concept for each band."""
    generator = torch.Generator().manual_seed(0)
    parts: list[dict[str, LayerTensors]] = [{} for _ in range(WIDTH // RANK)]
    for number in range(layers):
        U, V = (torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q for _ in "UV")
        for band, part in enumerate(parts):
            columns = slice(band * RANK, (band + 1) * RANK)
            basis = Triplets(U[:, columns].contiguous(), torch.ones(RANK), V[:, columns].contiguous())
            trained = {key: 0.01 * torch.randn(WIDTH, RANK, generator=generator) for key in "AB"}
            part[f"unet.blocks.{number}.attentions.0.transformer_blocks.0.attn1.to_q"] = LayerTensors(basis, trained)
    return [
        Concept(
            name=f"c{band}",
            trigger=f"<c{band}>",
            class_word="thing",
            band=Band(band, RANK),
            mode="additive",
            base=BASE,
            directions=WIDTH,
            fingerprints=dict.fromkeys(part, f"{BASE}:1.0"),
            training={"steps": 1000, "seed": 0, "pictures_digest": BASE},
            layers=part,
            embeddings={"text_encoder": torch.randn(2, WIDTH, generator=generator)},
        )
        for band, part in enumerate(parts)
    ]


def fill(root: Path, count: int, layers: int) -> None:
    """Write what is missing of `count` concepts, past the library's checks: each would read all others."""
    made: list[Concept] = []
    for number in range(count):
        path = root / f"c{number:05d}" / "concept.safetensors"
        if not path.exists():
            made = made or make_concepts(layers)
            name = path.parent.name
            replace(made[number % len(made)], name=name, trigger=f"<{name}>").save(path)


def command(*arguments: str) -> tuple[float, float]:
    """Seconds of one run of the command line, its output thrown away: by the wall's clock, and of the processor."""
    before, begin = children_cpu_seconds(), time.perf_counter()
    line = [sys.executable, "-m", "spectral_fusion", "concepts", *arguments]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin, children_cpu_seconds() - before


def children_cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=5000)
    parser.add_argument("--layers", type=int, default=128)
    parser.add_argument("--folder", type=Path, default=Path("out/large-library"))
    asked = parser.parse_args()
    fill(asked.folder, asked.concepts, asked.layers)
    library = ("--library", str(asked.folder))
    (asked.folder / INDEX).unlink(missing_ok=True)
    runs = {
        "list, without an index: reads all headers and writes it": ("list", *library),
        "list": ("list", *library),
        "list as JSON": ("list", "--json", *library),
        "search": ("list", "--search", "c0001 thing", *library),
        "overlaps of one with all": ("overlaps", "c00003", *library),
    }
    print("| command | seconds | of the processor |\n| --- | ---: | ---: |")
    for name, arguments in runs.items():
        wall, processor = command(*arguments)
        print(f"| {name} | {wall:.2f} | {processor:.2f} |", flush=True)


if __name__ == "__main__":
    main()
