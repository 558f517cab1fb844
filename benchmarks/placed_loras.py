"""LoRA files on Stable Diffusion 1.5's shapes: read, drawn plain, bound to places, fused; seconds and memory of each.

python benchmarks/placed_loras.py FILE [FILE ...] [--places 3] [--size 512] [--steps 2]

The base has random weights in bfloat16, so the pictures show nothing: what is measured is what is read, that all ways
draw something else than the base alone, what they cost, and that fusing is undone. Each way is a process of its own.
Linux only: the memory is the most that was resident while the picture was drawn, what the base takes included.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline

from sd15 import text_encoder, unet
from spectral_fusion.base.clip_tokenizer import clip_tokenizer
from spectral_fusion.base.interface import Base
from spectral_fusion.base.load import base_of
from spectral_fusion.base.merged import MergedWeights
from spectral_fusion.base.regions import Box, Region
from spectral_fusion.concept.community import LoraFile, read_lora
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.generation.bound import Placeable
from spectral_fusion.spectral import sum_factors

WAYS = ("plain", "everywhere", "bound", "fused")


def whole_base() -> Base:
    """Stable Diffusion 1.5 with random weights."""
    torch.manual_seed(0)
    widths = (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    pipeline = StableDiffusionPipeline(
        unet=unet(),
        text_encoder=text_encoder(),
        vae=vae,
        tokenizer=clip_tokenizer(),
        scheduler=PNDMScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return base_of(pipeline.to(torch.bfloat16))


def measured(way: str, given: argparse.Namespace) -> dict:
    """What one process found: seconds of one picture, its mean colour, and the most memory that the process had."""
    base = whole_base()
    shapes = {name: tuple(layer.weight.shape) for name, layer in base.layers().items()}
    loras = [read_lora(path, shapes) for path in given.files]
    config = GenerateConfig(
        "a photo of a cat", width=given.size, height=given.size, num_inference_steps=given.steps, seed=0
    )
    found: dict = {"loras": {lora.name: [len(lora.layers), lora.rank, list(lora.unmatched)] for lora in loras}}
    before = {name: layer.weight.detach().clone() for name, layer in base.layers().items() if name in loras[0].layers}
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: what loading took is not drawing's
    began = time.process_time()
    if way == "fused":
        merged = _merged(base, loras)
        with merged.present():
            image = generate(base, config)[0].image
        found["undone"] = all(torch.equal(weight, base.layers()[name].weight) for name, weight in before.items())
    else:
        live: dict[Placeable, float] | None = None if way == "plain" else dict.fromkeys(loras, 1.0)
        asked = _in_places(config, loras, given.places) if way == "bound" else config
        image = generate(base, asked, concepts=live)[0].image
    found |= {"seconds": time.process_time() - began, "colour": image.resize((1, 1)).getpixel((0, 0))}
    return found | {"GB": _peak()}


def _peak() -> float:
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1]) / 1e6


def _in_places(config: GenerateConfig, loras: list[LoraFile], places: int) -> GenerateConfig:
    """Side by side, the LoRAs in turn."""
    boxes = [Box(i / places, 0.2, (i + 1) / places, 1.0) for i in range(places)]
    own = [((loras[i % len(loras)].name, 1.0),) for i in range(places)]
    regions = [Region("a photo of a cat", box, concepts=who) for box, who in zip(boxes, own, strict=True)]
    return replace(config, regions=tuple(regions))


def _merged(base: Base, loras: list[LoraFile]) -> MergedWeights:
    names = list(dict.fromkeys(name for lora in loras for name in lora.layers))
    return MergedWeights(
        base, names, lambda name: sum_factors([lora.factors(name) for lora in loras if name in lora.layers])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--places", type=int, default=3)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measured(given.way, given)))
        return
    rows = {way: _in_a_process(way) for way in WAYS}
    for name, (layers, rank, unmatched) in rows["plain"]["loras"].items():
        print(f"{name}: {layers} layers, rank {rank}, keys without a layer: {', '.join(unmatched) or 'none'}")
    print("\n| way | CPU seconds | of plain | most memory, GB | of plain | mean colour |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    plain = rows["plain"]
    for way, row in rows.items():
        ratios = [f"{row[key]:.2f} | {row[key] / plain[key]:.2f}" for key in ("seconds", "GB")]
        print(f"| {way} | {' | '.join(ratios)} | {row['colour']} |")
    print(f"\nweights after fusing bit for bit as before: {rows['fused']['undone']}")


def _in_a_process(way: str) -> dict:
    line = [sys.executable, *sys.argv, "--way", way]
    return json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
