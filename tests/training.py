"""What the tests of training share: a folder of pictures, and a training of the tiny base in a process of its own."""

import multiprocessing
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from spectral_fusion.training import ResolvedConfig, TrainConfig

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["training", "tiny", "spectral_fusion.training.job"])
TINY_SETTINGS: dict[str, Any] = {
    "name": "rex",
    "class_word": "dog",
    "rank": 4,
    "steps": 6,
    "checkpoint_every": 1,
    "distillation_prompts": 0,
}


def draw_photos(folder: Path, count: int = 3, size: tuple[int, int] = (40, 40)) -> Path:
    """Pictures of coloured patches, each another."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        patches = np.random.default_rng(i).integers(0, 255, (4, 4, 3), np.uint8)
        Image.fromarray(patches).resize(size, Image.Resampling.NEAREST).save(folder / f"{i}.png")
    return folder


def train_tiny(images: Path, library: Path, resume: bool = False, **changes: Any) -> None:
    """One training on the tiny base, as it runs in a process of its own."""
    import torch

    from spectral_fusion.concept import Library
    from spectral_fusion.training import TrainConfig, train_concept
    from tiny import tiny_base

    torch.set_num_threads(1)
    config = TrainConfig(**TINY_SETTINGS | changes)
    train_concept(images, config, library=Library(library), base=tiny_base(), resume=resume)


def train_tiny_as_rank(rank: int, processes: int, port: int, images: Path, library: Path, changes: dict) -> None:
    """As `accelerate launch` starts one of several processes on CPUs."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    train_tiny(images, library, **changes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resolved(
    config: "TrainConfig", *, resolution: int = 32, prediction_type: str = "epsilon", precision: str = "fp32"
) -> "ResolvedConfig":
    """The settings as a base of this size and kind fills them in."""
    from spectral_fusion.base.presets import preset

    gamma = 5.0 if prediction_type == "epsilon" else 0.0
    defaults = preset(resolution, config.mode, config.preset) | {"min_snr_gamma": gamma}
    return config.resolved(defaults, precision)  # type: ignore[arg-type]
