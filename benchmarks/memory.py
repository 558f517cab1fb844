"""Predicted memory of trainings: checked against what trainings of random bases take here, and for published bases.

python benchmarks/memory.py            # both parts, docs/results/memory.md
python benchmarks/memory.py --measure  # the first part alone, printed
python benchmarks/memory.py --fits     # the second part alone, printed
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from published_bases import BASES, write_folder
from report import write_report
from spectral_fusion.base.outline import outline
from spectral_fusion.training.config import TrainConfig
from spectral_fusion.training.fitting import first_fits, fits_down, predicted
from spectral_fusion.training.memory import GB

CARDS = (8, 12, 16, 24)  # GB
SUBJECT: dict[str, Any] = {"name": "rex", "class_word": "dog"}
SHORT = {"steps": 2, "distillation_prompts": 0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "toybox, batch 4": ("toybox", {"batch_size": 4}),
    "middle, 256 px, batch 4": ("middle", {"batch_size": 4, "resolution": 256}),
    "middle, 512 px, batch 2": ("middle", {"batch_size": 2, "resolution": 512}),
    "middle, 512 px, batch 2, checkpointing": (
        "middle",
        {"batch_size": 2, "resolution": 512, "gradient_checkpointing": True},
    ),
}
TARGET = ("to_q", "to_k", "to_v", "to_out.0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--fits", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(**json.loads(arguments.child))
        return
    if arguments.fits:
        fits()
        return
    rows = measured_rows()
    if arguments.measure:
        print(*rows, sep="\n")
        return
    report(rows)


def settings_of(base: str, changes: dict[str, Any]) -> TrainConfig:
    target = {} if base == "toybox" else {"target": TARGET}
    return TrainConfig(base=base, **SUBJECT | SHORT | target | changes)


def measured_rows() -> list[list[object]]:
    """For each case: what was predicted, what a process of its own took at its most, and the error."""
    rows: list[list[object]] = []
    with TemporaryDirectory() as folder:
        middle = write_middle(Path(folder) / "middle")
        for name, (base, changes) in CASES.items():
            base = str(middle) if base == "middle" else base
            told = predicted(settings_of(base, changes), "cpu")
            child = json.dumps({"base": base, "changes": changes, "folder": folder})
            line = subprocess.run([sys.executable, __file__, "--child", child], check=True, capture_output=True)
            took, start = json.loads(line.stdout.splitlines()[-1])
            error = (told.peak - took) / took
            row: list[object] = [
                name,
                told.worst,
                f"{told.peak / GB:.2f}",
                f"{took / GB:.2f}",
                f"{error:+.0%}",
                f"{start / GB:.2f}",
            ]
            print(*row, flush=True)
            rows.append(row)
    return rows


def measure(base: str, changes: dict[str, Any], folder: str) -> None:
    """Train two steps, then print the most resident bytes of this process, and those before the base was opened."""
    import psutil
    import torch
    from PIL import Image

    from spectral_fusion.base.load import open_base
    from spectral_fusion.concept.images import ImageFolder
    from spectral_fusion.spectral import Band
    from spectral_fusion.training import job, single  # noqa: F401  what a training imports counts as before it

    photos = Path(folder) / "photos"
    photos.mkdir(exist_ok=True)
    for number in range(2):
        Image.new("RGB", (512, 512), (200, 40 * number, 90)).save(photos / f"{number}.png")
    start = psutil.Process().memory_info().rss
    opened = open_base(base, dtype=torch.float32)
    config = settings_of(base, changes).resolved(opened.presets("additive", "balanced"), "fp32")
    single.train(opened, ImageFolder.scan(photos), config, Band(0, config.rank, config.band_side))
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    (most,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(json.dumps([int(most.split()[1]) * 1024, start]))


def write_middle(folder: Path) -> Path:
    """A random Stable Diffusion of 270 million weights in float16, between toybox and 1.5 in size."""
    import torch
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from spectral_fusion.base.clip_tokenizer import END, clip_tokenizer

    torch.manual_seed(0)
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    pipeline = StableDiffusionPipeline(
        unet=UNet2DConditionModel(sample_size=64, block_out_channels=(160, 320, 640, 640), cross_attention_dim=512),
        vae=AutoencoderKL(
            block_out_channels=(32, 64, 64, 64), down_block_types=down, up_block_types=up, sample_size=512
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(hidden_size=512, intermediate_size=2048, num_hidden_layers=6, vocab_size=49408)
        ),
        tokenizer=clip_tokenizer(77, END),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)
    return folder


def fits() -> list[list[object]]:
    """For each published base: as it is, and the switches that make it fit into each card."""
    rows: list[list[object]] = []
    with TemporaryDirectory() as folder:
        for name in BASES:
            home = write_folder(name, Path(folder) / name)
            config, opened = TrainConfig(base=str(home), **SUBJECT), partial(outline, home)
            plain = predicted(config, "gpu", open_outline=opened)
            row: list[object] = [name, f"{plain.peak / GB:.1f}"]
            found = first_fits(fits_down(config, "gpu", open_outline=opened), [card * GB for card in CARDS])
            for fit in found.values():
                row.append("does not fit" if fit is None else f"{words(fit.flags)}: {fit.prediction.peak / GB:.1f}")
            print(*row, sep=" | ", flush=True)
            rows.append(row)
    return rows


def words(flags: tuple[str, ...]) -> str:
    return f"`{' '.join(flags)}`" if flags else "as it is"


def report(measured: list[list[object]]) -> None:
    heads: list[object] = [
        "random base, fp32 on a CPU",
        "phase that takes most",
        "predicted",
        "measured",
        "error",
        "before",
    ]
    table: list[list[object]] = [heads, ["---", "---", *["---:"] * 4], *measured]
    lines = "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in table)
    write_report("memory", TITLE, ["base", "plain", *(f"{card} GB" for card in CARDS)], fits(), REMARKS + lines)


TITLE = "Memory that trainings take, predicted, in GB"
REMARKS = """
Predicted from the published configurations alone, on the meta device, with the settings that `train` chooses by itself
(bf16, AdamW, rank 8, the base's own picture size, one picture a step and one prediction to preserve beside it; 1.5: two
and two). The flags are the first that fit, in the order of `training/fitting.py`: those that leave the result as it is
come first. "plain" counts loading, which is done in float32 without `--low-memory`. A card is taken to have all of its
memory free. **No figure of this table has been measured on a GPU**; 0.7 GB and 5 % are allowed for what CUDA and its
allocator take, and convolutions' own workspaces are not counted.

## Against what trainings take here

Each row is a process of its own that opens a random base and trains two steps. "measured" is the most resident memory
of that process, "before" what it held before it opened the base.

On a CPU the C library keeps freed blocks of up to 32 MB in its heap, in pieces that the next ones do not always fit
into. A step of "middle" at 256 px (batch 4, without neutral prompts) held 0.85 GB of tensors at the most; its process
grew by 1.15 GB, and by 0.87 GB where the heap was told to give such blocks back (`MALLOC_MMAP_THRESHOLD_=65536`).
So a CPU's prediction has a quarter of a step's activations more. That share was chosen on the two rows without
checkpointing, so that these agree is no test of it.

"""

if __name__ == "__main__":
    main()
