"""The heavy modules: behind the first page, and by one thread. And the processor's cores: for one thread as well.

transformers, accelerate and peft import one another in circles. Two threads that enter such a circle from two sides
break it: one of them gets a module that is half there, and an ImportError.

A thread that has once computed on all cores keeps helpers for them until it ends. Where the helpers of several threads
outnumber the cores, OpenMP lets all of them sleep between operations, and a picture takes twice as long. So all threads
compute alone, but the one that draws.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from contextlib import nullcontext

# What answers and loads import inside their functions. torch, diffusers and transformers come with them.
MODULES = (
    "spectral_fusion.concept",
    "spectral_fusion.concept.claim",
    "spectral_fusion.concept.community",
    "spectral_fusion.concept.images",
    "spectral_fusion.evaluate",
    "spectral_fusion.fusion",
    "spectral_fusion.generation",
    "spectral_fusion.base.load",
    "spectral_fusion.base.bundled",
    "spectral_fusion.base.presets",
    "spectral_fusion.base.samplers",
    "spectral_fusion.base.sd",
    "spectral_fusion.picture",
    "spectral_fusion.training.folder",
    "spectral_fusion_app.library.loras",
)

_lock = threading.Lock()
_imported: list[str] = []
_chosen: list[int] = []


def import_once() -> None:
    """Import them, or wait until another thread has; at once from then on. For whatever may import them by itself.

    The thread that calls this computes alone from then on.
    """
    with _lock if len(_imported) < len(MODULES) else nullcontext():
        for name in MODULES[len(_imported) :]:
            importlib.import_module(name)
            _imported.append(name)
    _compute_on(1)


def compute_on_all_cores() -> None:
    """Let the thread that calls this compute on as many cores as torch has chosen, once all is imported."""
    _compute_on(_cores())


def _compute_on(cores: int) -> None:
    _cores()
    import torch

    torch.set_num_threads(cores)  # of this thread, and of those that have not computed yet


def _cores() -> int:
    """What torch has chosen for threads; asked before the first of them is told otherwise."""
    with _lock:
        if not _chosen:
            import torch

            _chosen.append(torch.get_num_threads())
        return _chosen[0]


async def imported() -> None:
    """The same for a coroutine: other requests go on meanwhile, and no thread is taken once all is imported."""
    if len(_imported) < len(MODULES):
        await asyncio.to_thread(import_once)
    _compute_on(1)
