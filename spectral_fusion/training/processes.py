"""The processes of one training, as `accelerate launch` starts them (one where nothing did), and their arithmetic."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from spectral_fusion.errors import InputError

T = TypeVar("T")


def processes() -> PartialState:
    """This process's rank, how many there are, and its device; the first call connects them."""
    # Without this word accelerate looks for accelerators only, and would run each of several CPU processes alone.
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return PartialState(cpu=on_cpu or not torch.accelerator.is_available())  # a singleton: later calls read it


def is_main() -> bool:
    """Whether this is the process that reads and writes the library."""
    return processes().is_main_process


def on_main(function: Callable[[], T]) -> T:
    """The result of `function`, run in the main process, in every process; also its InputError."""
    outcome: list = [None, None]
    if is_main():
        try:
            outcome[0] = function()
        except InputError as error:
            outcome[1] = str(error)
    result, problem = broadcast_object_list(outcome)
    if problem is not None:
        raise InputError(problem)
    return result


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Let a GPU sum in a fixed order, so that a resumed training gives the same file there too. CPUs do anyway.

    Not as warnings only: PyTorch's fused attention then keeps its faster backward pass, which sums in any order.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
