"""The heavy modules: behind the first page, and by one thread.

transformers, accelerate and peft import one another in circles. Two threads that enter such a circle from two sides
break it: one of them gets a module that is half there, and an ImportError.
"""

from __future__ import annotations

import asyncio
import importlib
import threading

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


def import_once() -> None:
    """Import them, or wait until another thread has; at once from then on. For whatever may import them by itself."""
    if len(_imported) == len(MODULES):
        return
    with _lock:
        for name in MODULES[len(_imported) :]:
            importlib.import_module(name)
            _imported.append(name)


async def imported() -> None:
    """The same for a coroutine: other requests go on meanwhile, and no thread is taken once all is imported."""
    if len(_imported) < len(MODULES):
        await asyncio.to_thread(import_once)
