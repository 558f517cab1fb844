"""What places cost where attention is joint: SD 3's transformer with concepts in regions over a plain answer.

python benchmarks/joint_places.py --sizes 512 1024 --places 1 3 --layers 2
"""

import argparse
import statistics
import time
from contextlib import ExitStack

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor

from spectral_fusion.adapter.masks import Masks
from spectral_fusion.adapter.placed import PlacedDelta, placed
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.flow import JOINT_ATTENTION
from spectral_fusion.base.regions import Box, Region, side_by_side
from spectral_fusion.base.sd3 import StableDiffusion3
from spectral_fusion.spectral import Factors

TEXT, WIDTH, POOLED = 333, 4096, 2048  # tokens of both CLIPs and T5, and what they are told in
RANK = 8


def random_sd3(layers: int, heads: int) -> StableDiffusion3:
    """SD 3's transformer with so many layers and random weights, without text encoders and autoencoder."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        num_layers=layers,
        num_attention_heads=heads,
        caption_projection_dim=64 * heads,
        pos_embed_max_size=192,
    )
    names = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    parts = dict.fromkeys(names)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return StableDiffusion3(StableDiffusion3Pipeline(transformer=transformer.eval(), scheduler=scheduler, **parts))


def told(rows: int) -> Condition:
    return Condition(torch.randn(rows, TEXT, WIDTH), torch.randn(rows, POOLED))


def delta(base: StableDiffusion3, place: int) -> PlacedDelta:
    """A concept on all attention."""
    layers = {
        name: Factors(0.01 * torch.randn(len(layer.weight), RANK), 0.01 * torch.randn(RANK, layer.weight.shape[1]))
        for name, layer in base.layers().items()
        if name.endswith(JOINT_ATTENTION)
    }
    return PlacedDelta(layers, place=place)


@torch.no_grad()
def seconds(base: StableDiffusion3, boxes: list[Box], noisy: Tensor, own: Condition, repeats: int) -> float:
    """CPU seconds of an answer to both halves of guidance, the least disturbed of some."""
    regions = [Region("x", tuple(box)) for box in boxes]
    deltas = [delta(base, place) for place in range(len(boxes))]
    kinds = {name: base.layer_kind(name) for each in deltas for name in each.layers}
    taken = []
    with ExitStack() as stack:
        placement = stack.enter_context(placed(base.layers(), kinds, deltas, Masks(regions, *noisy.shape[2:])))
        if boxes:
            stack.enter_context(base.read_places([told(2) for _ in boxes], placement))
        for _ in range(repeats):
            began = time.process_time()
            base.predict(noisy, torch.tensor(500.0), own)
            taken.append(time.process_time() - began)
    print(f"    {len(boxes)} places: {', '.join(f'{one:.2f}' for one in taken)} s", flush=True)
    return min(taken) if repeats < 3 else statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--places", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    base = random_sd3(arguments.layers, arguments.heads)
    print("| px | places | of the picture | an answer over the plain one |\n| ---: | ---: | --- | ---: |")
    for size in arguments.sizes:
        noisy, own = torch.randn(2, *(16, size // 8, size // 8)), told(2)
        plain = seconds(base, [], noisy, own, arguments.repeats)
        for count in arguments.places:
            columns = [Box(i / count, 0, (i + 1) / count, 1) for i in range(count)]
            squares = side_by_side(count) if count > 1 else [Box(0.25, 0, 0.75, 1)]
            for what, boxes in (("part", squares), ("all", columns)):
                ratio = seconds(base, boxes, noisy, own, arguments.repeats) / plain
                print(f"| {size} | {count} | {what} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
