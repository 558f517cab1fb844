"""Where the page meets the engine: a loaded base, what it draws, and where its weights lie."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from spectral_fusion.concept import Concept
    from spectral_fusion.generate import GenerateConfig, Picture, Step


class Engine:
    """One base in memory."""

    def __init__(self, pipeline: StableDiffusionPipeline, device: str) -> None:
        from spectral_fusion.concept import base_fingerprint

        self.pipeline, self.device = pipeline, device
        self.fingerprint = base_fingerprint(pipeline)
        self.parked = True

    @classmethod
    def load(cls, base: str) -> Engine:
        """Load a base into the computer's memory; `unpark` moves it to the GPU, once there is room.

        Raises:
            InputError: it cannot be loaded.
        """
        from spectral_fusion.pipeline.load import best_device, best_dtype, load_base

        device = best_device()
        return cls(load_base(base, dtype=best_dtype(device), device="cpu"), device)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the pictures that it was trained on."""
        edge = self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor
        return edge, edge

    @property
    def triggers(self) -> list[str]:
        """Triggers that the base knows by itself."""
        from spectral_fusion.pipeline.prompt import known_triggers

        return known_triggers(self.pipeline)

    def unpark(self) -> None:
        """Make it ready to draw."""
        if self.parked:
            self.pipeline.to(self.device)
            self.parked = False

    def park(self) -> None:
        """Leave the GPU to others; nothing happens on a CPU."""
        if self.device != "cpu" and not self.parked:
            self.pipeline.to("cpu")
            self.parked = True
            free_memory()

    @contextmanager
    def holding(self, concepts: Mapping[Concept, float]) -> Iterator[Mapping[str, str]]:
        """With concepts in the weights; yields what pictures should say of it. The base is as before afterwards."""
        if not concepts:
            yield {}
            return
        from spectral_fusion.fuse import fuse

        fusion = fuse(self.pipeline, concepts)
        try:
            yield fusion.notes
        finally:
            fusion.undo()

    def check_length(self, prompts: Sequence[str], most: int) -> None:
        """Raises InputError: a prompt has more tokens, each trigger counted with all its vectors."""
        tokenizer = self.pipeline.tokenizer
        for prompt in prompts:
            text = self.pipeline.maybe_convert_prompt(prompt, tokenizer)
            count = len(tokenizer.tokenize(text))
            if count > most:
                raise InputError(f"{count} tokens in a prompt are more than the {most} that this page allows; cut it")

    def draw(self, config: GenerateConfig, watch: Callable[[Step], bool]) -> list[Picture]:
        """Pictures; those that are done where `watch` says False."""
        from spectral_fusion.generate import generate

        return generate(self.pipeline, config, on_step=watch)


def free_memory() -> None:
    """Give back what nothing uses any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_and_memory() -> tuple[str, float, float]:
    """Where pictures are made, and how many bytes of memory are used there, and are there in all."""
    import psutil
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return torch.cuda.get_device_name(), total - free, total
    return "CPU", psutil.Process().memory_info().rss, psutil.virtual_memory().total


def samplers() -> list[str]:
    """Names of the samplers."""
    from spectral_fusion.pipeline.samplers import SAMPLERS

    return list(SAMPLERS)


def sheet(images: Sequence[Sequence[Any]], rows: Sequence[str], columns: Sequence[str]) -> Any:
    """Pictures as one, with a label for each row and column."""
    from spectral_fusion.picture import contact_sheet

    return contact_sheet(images, rows, columns)


def weights_text(weights: Mapping[str, float]) -> str:
    """As pictures record them."""
    from spectral_fusion.picture import format_weights

    return format_weights(weights)
