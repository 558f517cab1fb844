"""What tells one base from another: fingerprints of its weights that survive a change of precision.

Rounding float32 to float16 or bfloat16 moves every weight but never turns its sign (IEEE 754 keeps it even where the
value underflows to zero). A hash of signs is therefore the same for every copy of a checkpoint, while fine-tuning by a
hundredth of the weights' size turns about one sign in three hundred: among thousands of samples, some always.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

LAYER_SAMPLES = 2**14
BASE_SAMPLES = 2**12
NORM_TOLERANCE = 0.01  # rounding to bfloat16 changes a norm by a ten thousandth


def weight_fingerprint(weight: Tensor) -> str:
    """Fingerprint of one weight of any shape: a hash of signs, and a norm, which signs say nothing about."""
    samples = _samples(weight, LAYER_SAMPLES)
    norm = torch.linalg.vector_norm(samples, dtype=torch.float32)
    return f"{_hash_signs([(tuple(weight.shape), samples)])}:{norm.item():.4g}"


def same_weight(first: str, second: str) -> bool:
    """Whether two fingerprints are of one weight, in whatever precisions."""
    (hash_1, _, norm_1), (hash_2, _, norm_2) = first.partition(":"), second.partition(":")
    return hash_1 == hash_2 and math.isclose(float(norm_1), float(norm_2), rel_tol=NORM_TOLERANCE)


def base_fingerprint(pipeline: StableDiffusionPipeline) -> str:
    """Fingerprint of a whole base: UNet and text encoder, without token embeddings and whatever adapters are on."""
    weights = [layer.weight for model in (pipeline.unet, pipeline.text_encoder) for _, layer in base_layers(model)]
    return _hash_signs([(tuple(weight.shape), _samples(weight, BASE_SAMPLES)) for weight in weights])


def base_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Linear and convolution layers under the names they have without adapters, the layers of adapters left out."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # takes seconds, and listing a library needs no model

    adapters: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(adapters):
            continue
        if isinstance(module, BaseTunerLayer):
            adapters += (f"{name}.",)
            module = module.get_base_layer()
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            yield name, module


def pipeline_layers(pipeline: StableDiffusionPipeline) -> dict[str, nn.Module]:
    """The layers that a concept can adapt, keyed as in its file: `unet.<module path>`, `text_encoder.<module path>`."""
    return {
        f"{component}.{name}": layer
        for component in ("unet", "text_encoder")
        for name, layer in base_layers(getattr(pipeline, component))
    }


def _hash_signs(samples: list[tuple[tuple[int, ...], Tensor]]) -> str:
    digest = hashlib.sha256()
    for shape, values in samples:
        digest.update(str(shape).encode())
        digest.update(np.packbits(torch.signbit(values).cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def _samples(weight: Tensor, samples: int) -> Tensor:
    """Evenly spread elements, about `samples` of them, as a contiguous vector."""
    step = max(1, weight.numel() // samples) | 1  # odd: an even step would meet the same columns in each row
    return weight.detach().reshape(-1)[::step].contiguous()
