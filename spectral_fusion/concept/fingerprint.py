"""What tells one base from another: fingerprints of its weights that survive a change of precision.

Rounding float32 to float16 or bfloat16 moves every weight but never turns its sign (IEEE 754 keeps it even where the
value underflows to zero). A hash of signs is therefore the same for every copy of a checkpoint, while fine-tuning by a
hundredth of the weights' size turns about one sign in three hundred: among thousands of samples, some always.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LAYER_SAMPLES = 2**14
NORM_TOLERANCE = 0.01  # rounding to bfloat16 changes a norm by a ten thousandth


def weight_fingerprint(weight: Tensor) -> str:
    """Fingerprint of one weight of any shape: a hash of signs, and a norm, which signs say nothing about."""
    samples = spread_samples(weight, LAYER_SAMPLES)
    norm = torch.linalg.vector_norm(samples, dtype=torch.float32)
    return f"{sign_hash([(tuple(weight.shape), samples)])}:{norm.item():.4g}"


def same_weight(first: str, second: str) -> bool:
    """Whether two fingerprints are of one weight, in whatever precisions."""
    (hash_1, _, norm_1), (hash_2, _, norm_2) = first.partition(":"), second.partition(":")
    return hash_1 == hash_2 and math.isclose(float(norm_1), float(norm_2), rel_tol=NORM_TOLERANCE)


def sign_hash(samples: Sequence[tuple[tuple[int, ...], Tensor]]) -> str:
    """A hash of shapes and of the signs of values."""
    digest = hashlib.sha256()
    for shape, values in samples:
        digest.update(str(shape).encode())
        digest.update(np.packbits(torch.signbit(values).cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def spread_samples(weight: Tensor, samples: int) -> Tensor:
    """Evenly spread elements, about `samples` of them, as a contiguous vector."""
    step = max(1, weight.numel() // samples) | 1  # odd: an even step would meet the same columns in each row
    return weight.detach().reshape(-1)[::step].contiguous()
