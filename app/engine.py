"""Where the page meets the engine: a loaded base, what it draws, and where its weights lie."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spectral_fusion.errors import InputError
from spectral_fusion_app.subjects import Subjects

if TYPE_CHECKING:
    from PIL import Image

    from spectral_fusion.base.control import Control, ControlNet
    from spectral_fusion.base.interface import Base
    from spectral_fusion.concept import Concept
    from spectral_fusion.concept.community import LoraFile
    from spectral_fusion.generation import GenerateConfig, Picture, Step

    Drawn = Concept | LoraFile


class Engine:
    """One base in memory, and the concepts and LoRAs that were read for it lately."""

    def __init__(self, base: Base, device: str) -> None:
        self.base, self.device = base, device
        self.fingerprint = base.fingerprint
        self.subjects = Subjects()
        self.parked = True
        self._controlnet: tuple[str, ControlNet] | None = None  # the last one, by the name that it was asked by

    @classmethod
    def load(cls, base: str) -> Engine:
        """Load a base into the computer's memory; `unpark` moves it to the GPU, once there is room.

        Raises:
            InputError: it cannot be loaded.
        """
        from spectral_fusion.base.load import best_device, best_dtype, open_base

        device = best_device()
        return cls(open_base(base, dtype=best_dtype(device), device="cpu"), device)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the pictures that it was trained on."""
        return self.base.size, self.base.size

    def places(self, count: int) -> list[list[float]]:
        """Boxes for so many subjects side by side."""
        from spectral_fusion.evaluate.boxes import region_boxes

        return [list(box) for box in region_boxes(self.base.places(count))]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the weights of its layers, by name: what a LoRA file is read for."""
        return {name: tuple(layer.weight.shape) for name, layer in self.base.layers().items()}

    @property
    def triggers(self) -> list[str]:
        """Triggers that the base knows by itself."""
        return self.base.triggers()

    def steps(self, preset: str) -> int:
        """Of a training by this preset."""
        return int(self.base.presets("additive", preset)["steps"])

    def unpark(self) -> None:
        """Make it ready to draw."""
        if self.parked:
            self.base.to(self.device)
            self.parked = False

    def park(self) -> None:
        """Leave the GPU to others; nothing happens on a CPU."""
        if self.device != "cpu" and not self.parked:
            self.base.to("cpu")
            self.parked = True
            self._controlnet = None
            free_memory()

    @property
    def takes_control(self) -> bool:
        """Whether pictures of this base can be controlled by a ControlNet."""
        try:
            self.base.check_control({}, "")
        except InputError:
            return False
        return True

    def control(self, model: str, image: Image.Image, scale: float, start: float, end: float) -> Control:
        """A control picture with its ControlNet loaded; one is kept. Raises InputError where it does not fit."""
        from spectral_fusion.base.control import Control
        from spectral_fusion.base.load_control import open_controlnet

        if self._controlnet is None or self._controlnet[0] != model:
            self._controlnet = None
            self._controlnet = (model, open_controlnet(model, self.base))
        return Control(self._controlnet[1], image, scale, start, end)

    @contextmanager
    def holding(self, concepts: Mapping[Concept, float]) -> Iterator[Mapping[str, str]]:
        """With concepts in the weights; yields what pictures should say of it. The base is as before afterwards."""
        if not concepts:
            yield {}
            return
        from spectral_fusion.fusion import fuse

        fusion = fuse(self.base, concepts)
        try:
            yield fusion.notes
        finally:
            fusion.undo()

    def check_length(self, prompts: Sequence[str], concepts: Iterable[Drawn], most: int) -> None:
        """Raises InputError: a prompt has more tokens, each trigger counted with all its vectors."""
        vectors = {
            word: max((len(rows) for rows in parts.values()), default=0)
            for concept in concepts
            for word, parts in concept.words.items()
        }
        for prompt in prompts:
            count = self.base.token_count(prompt)
            count += sum(prompt.count(trigger) * rows for trigger, rows in vectors.items())
            if count > most:
                raise InputError(f"{count} tokens in a prompt are more than the {most} that this page allows; cut it")

    def notes(self, config: GenerateConfig) -> list[str]:
        """A line for each setting that has no effect on this base."""
        from spectral_fusion.generation.unheeded import unheeded

        return unheeded(self.base, config)

    def draw(
        self, config: GenerateConfig, concepts: Mapping[Drawn, float], watch: Callable[[Step], bool]
    ) -> list[Picture]:
        """Pictures; those that are done where `watch` says False. `concepts`: at work in their places, not fused."""
        from spectral_fusion.generation import Placeable, generate

        placed: dict[Placeable, float] = dict(concepts.items())
        return generate(self.base, config, concepts=placed, on_step=watch)


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
    from spectral_fusion.base.samplers import SAMPLERS

    return list(SAMPLERS)


def sheet(images: Sequence[Sequence[Any]], rows: Sequence[str], columns: Sequence[str]) -> Any:
    """Pictures as one, with a label for each row and column."""
    from spectral_fusion.picture import contact_sheet

    return contact_sheet(images, rows, columns)


def weights_text(weights: Mapping[str, float]) -> str:
    """As pictures record them."""
    from spectral_fusion.picture import format_weights

    return format_weights(weights)


def image_digest(image: Any) -> str:
    """By which pictures name the picture that they began from."""
    from spectral_fusion.generation.config import image_digest as digest

    return digest(image)


def checked_mask(text: str, what: str) -> str:
    """A painted mask as pictures record it. Raises InputError: it cannot be read, or nothing is painted."""
    from spectral_fusion.base.painted import mask_tensor, tensor_text

    try:
        values = mask_tensor(text)
    except InputError as error:
        raise InputError(f"{what} has a mask that cannot be read; paint it again") from error
    if not values.any():
        raise InputError(f"{what} has a mask with nothing painted; paint where it is, or take the mask away")
    return tensor_text(values)


def found_box(mask: str) -> tuple[float, float, float, float]:
    """The box around a mask that a picture records, as fractions: left, top, right, bottom."""
    from spectral_fusion.base.painted import mask_tensor

    rows, columns = (mask_tensor(mask) > 0.5).nonzero(as_tuple=True)
    height, width = mask_tensor(mask).shape
    if not len(rows):
        return 0.0, 0.0, 1.0, 1.0
    left, right = int(columns.min()) / width, (int(columns.max()) + 1) / width
    return round(left, 3), round(int(rows.min()) / height, 3), round(right, 3), round((int(rows.max()) + 1) / height, 3)
