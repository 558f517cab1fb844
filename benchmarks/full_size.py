"""Stable Diffusion XL at full size, of random weights, in one fp16 file: opened, trained, fused to a LoRA.

    python benchmarks/full_size.py FOLDER

FOLDER gets the checkpoint (6.9 GB), which is not made again where it is there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from spectral_fusion.base.load import open_base, own_dtype
from spectral_fusion.concept import Concept, export_lora
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.identify import identify
from spectral_fusion.spectral import Band, decompose
from spectral_fusion.training.config import TrainConfig
from spectral_fusion.training.model import target_layers
from spectral_fusion.training.single import train

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ldm_xl import xl_tensors
from published_bases import BASES, CLIP_G, CLIP_L
from report import write_report

SIZE = 512  # px
SUBJECTS = {"rex": "dog", "tom": "cat", "fin": "fish"}
LOW: dict[str, Any] = {
    "low_memory": True,
    "precision": "bf16",
    "resolution": SIZE,
    "batch_size": 1,
    "steps": 2,
    "distillation_prompts": 0,
}
NARROW: dict[str, Any] = {"target": ("attn2.to_v",)}
"""The second and the third concept adapt fewer layers: that they are there is what counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "xl.safetensors"
    if arguments.make:
        save_file(checkpoint(), folder / "part")
        (folder / "part").rename(file)
        return
    if not file.exists():  # in a process of its own, whose memory is not counted
        subprocess.run([sys.executable, __file__, str(folder), "--make"], check=True)
    phases = Phases()
    with phases("say what the file is, from its header"):
        assert identify(file).family == "sdxl"
    concepts = [trained(file, folder, number, phases) for number in range(len(SUBJECTS))]
    with phases("three concepts to one LoRA"):
        export_lora(dict.fromkeys(concepts, 1.0), folder / "three.safetensors", "kohya")
    write_report(
        "full-size", TITLE, ["step", "s by the clock", "s of the processor", "most memory, GB"], phases.rows, REMARKS
    )


class Phases:
    """Times what is done within it, and takes the most memory that the process holds meanwhile."""

    def __init__(self) -> None:
        self.rows: list[list[object]] = []

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the most so far is what there is now
        wall, own = time.monotonic(), time.process_time()
        yield
        took = time.monotonic() - wall, time.process_time() - own
        (most,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        self.rows.append([what, *(f"{seconds:.1f}" for seconds in took), f"{int(most.split()[1]) * 1024 / 1e9:.1f}"])
        print(*self.rows[-1], sep=" | ", flush=True)


def trained(file: Path, folder: Path, number: int, phases: Phases) -> Concept:
    """One concept, as `train --low-memory` makes it, without the preview that it draws at the end."""
    name, class_word = list(SUBJECTS.items())[number]
    config = TrainConfig(base=str(file), name=name, class_word=class_word, **LOW | (NARROW if number else {}))
    photos = ImageFolder.scan(write_photos(folder / "photos" / name, number))
    with phases(f"{name}: open in half precision"):
        base = open_base(str(file), dtype=own_dtype(str(file)), device="cpu")
    settings = config.resolved(base.presets(config.mode, config.preset), "bf16")
    band = Band(number, settings.rank, settings.band_side)
    weights = {layer: module.weight for layer, module in target_layers(base, settings).items()}
    with phases(f"{name}: bands of {len(weights)} layers"):
        bases = decompose(weights, band)
    del weights
    with phases(f"{name}: encode three pictures, train two steps of one at {SIZE} px"):
        base.cast(torch.bfloat16)
        base.place("cpu", [part for part in base.parts if settings.learns(part)])
        return train(base, photos, settings, band, bases=bases)


def checkpoint() -> dict[str, Tensor]:
    """The tensors of a random XL in half precision, under the names of the original code."""
    parts = BASES["Stable Diffusion XL"][1]
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**parts["unet"][2]), AutoencoderKL(**parts["vae"][2])
        first = CLIPTextModel(CLIPTextConfig(**CLIP_L))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G, projection_dim=1280))
    models: Any = SimpleNamespace(unet=unet, vae=vae, text_encoder=first, text_encoder_2=second)
    return dict(filled(xl_tensors(models)))


def filled(shapes: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Random values: of norms ones, of biases zeros, of weights such that what comes in goes out as large."""
    source = torch.Generator().manual_seed(0)
    made = []
    for name, like in shapes.items():
        if like.ndim > 1:
            fan_in = like[0].numel()
            value = torch.randn(like.shape, generator=source).div_(fan_in**0.5)
        elif like.is_floating_point():
            value = torch.ones(like.shape) if name.endswith("weight") else torch.zeros(like.shape)
        else:
            value = torch.arange(like.numel())
        made.append((name, value.to(torch.float16 if like.is_floating_point() else like.dtype)))
    return made


def write_photos(folder: Path, seed: int) -> Path:
    """Three pictures of noise: a training refuses those of one colour."""
    folder.mkdir(parents=True, exist_ok=True)
    source = torch.Generator().manual_seed(seed)
    for number in range(3):
        coarse = torch.randint(0, 256, (16, 16, 3), generator=source, dtype=torch.uint8)
        Image.fromarray(coarse.numpy()).resize((SIZE, SIZE)).save(folder / f"{number}.png")
    return folder


TITLE = "Stable Diffusion XL at full size"
REMARKS = """
`python benchmarks/full_size.py FOLDER`: a checkpoint of random weights with XL's own configuration, one fp16 file in
the original layout, 6.9 GB. One process; each row is what that step took, and the most that the process held in it,
pages of the mapped file among it. `--low-memory` checkpoints gradients; on a CPU there is no card to keep models away
from. The first concept adapts all layers that `train` adapts by default, the others one projection a block.
"""

if __name__ == "__main__":
    main()
