"""All randomness of training: a generator for each picture of each step, never a stream.

What a step does is a function of (seed, step, index in the global batch). Resuming after a kill, and sharing the batch
among processes, then change nothing, and there is no generator state to save.
"""

import hashlib

import torch


def generator(*key: int | float | str) -> torch.Generator:
    """A CPU generator whose seed is a hash of `key`: (seed, purpose), (seed, purpose, step, index), …

    Different keys give independent streams; on every device and machine the same key gives the same numbers.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little"))


def randint(high: int, source: torch.Generator) -> int:
    """A whole number in [0, high)."""
    return int(torch.randint(high, (), generator=source))


def chance(probability: float, source: torch.Generator) -> bool:
    """True with the given probability."""
    return float(torch.rand((), generator=source)) < probability


def permutation(length: int, *key: int | str) -> list[int]:
    """The numbers 0 … length - 1 in an order that depends on `key` alone."""
    return torch.randperm(length, generator=generator(*key)).tolist()
