"""The base as the command line names it, for the verbs that load one."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

Base = Annotated[str, typer.Option(help="toybox, a diffusers folder, a .safetensors checkpoint or a hub id.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps. Default: a GPU where there is one.")]
Precision = Annotated[
    Literal["fp32", "fp16", "bf16"] | None, typer.Option(help="Default: fp16 on a GPU, fp32 on the CPU.")
]


def open_base(base: str, device: str | None = None, precision: str | None = None) -> "StableDiffusionPipeline":
    """Load a base; None chooses a GPU where there is one, and what is fast there. Raises InputError."""
    import torch

    from spectral_fusion.pipeline.load import best_device, best_dtype, load_base

    device = device or best_device()
    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    return load_base(base, dtype=dtypes[precision] if precision else best_dtype(device), device=device)
