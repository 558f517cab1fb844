"""What the device of a training is best at, and what to do where its memory runs out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from spectral_fusion.errors import InputError
from spectral_fusion.training.config import Precision

QUICK_IN_HALF = ("avx512_bf16", "amx_bf16", "bf16")  # what a CPU has that computes in bfloat16; the last is ARM's


def best_precision(device: torch.device) -> Precision:
    """What `accelerate launch --mixed_precision` asks for, else the format that the device is fastest in."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION")
    if asked == "fp16":
        return "fp16"
    if asked == "bf16":
        return "bf16"
    if device.type == "cpu":
        return "bf16" if _computes_in_bfloat16() else "fp32"
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _computes_in_bfloat16() -> bool:
    """Whether this CPU does, rather than to imitate it; older versions of PyTorch cannot say."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name) for name in QUICK_IN_HALF)


@contextmanager
def memory_advice() -> Iterator[None]:
    """Say what to lower where memory runs out. PyTorch has no error class for a failed allocation on the CPU."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        gone = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
        if not gone:
            raise
        raise InputError(
            "not enough memory; raise --gradient-accumulation, add --gradient-checkpointing, or lower --batch-size, "
            "--resolution or --rank"
        ) from error
