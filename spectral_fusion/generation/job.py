"""The job: settings and concepts in, pictures out, with previews on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from spectral_fusion.base.condition import DenoisingStep
from spectral_fusion.base.interface import Base
from spectral_fusion.errors import InputError
from spectral_fusion.generation.bound import Live, Placeable, concepts_known, tell_overlaps
from spectral_fusion.generation.composite import composite
from spectral_fusion.generation.config import GenerateConfig, to_parameters
from spectral_fusion.generation.draw import Pass, Stopped, draw
from spectral_fusion.generation.fitting import fitted
from spectral_fusion.generation.found import with_places
from spectral_fusion.generation.refine import enlarge, put_back, refine, start_of
from spectral_fusion.generation.unheeded import unheeded
from spectral_fusion.picture import Parameters, format_weights

logger = logging.getLogger(__name__)

PREVIEW_LATENTS = 32


@dataclass(frozen=True)
class Picture:
    """A picture, the seed that gives it again, and how it was made."""

    image: Image.Image
    seed: int
    parameters: Parameters


@dataclass(frozen=True)
class Step:
    """A moment of the work: step `step` of `steps` of picture `picture` of `pictures`, all counted from 1."""

    step: int
    steps: int
    picture: int
    pictures: int
    latents: Tensor
    base: Base = field(repr=False)

    def preview(self) -> Image.Image:
        """The picture as far as it is: latents (1, channels, height, width), made small first, through the decoder."""
        scale = min(1.0, PREVIEW_LATENTS / max(self.latents.shape[2:]))
        size = [max(1, round(edge * scale)) for edge in self.latents.shape[2:]]
        return self.base.decode(torch.nn.functional.interpolate(self.latents.float(), size=size, mode="area"))[0]


OnStep = Callable[[Step], bool | None]
OnDenoising = Callable[[DenoisingStep], bool | None]


def generate(
    base: Base,
    config: GenerateConfig,
    *,
    concepts: Mapping[Placeable, float] | None = None,
    on_step: OnStep | None = None,
) -> list[Picture]:
    """Generate pictures; the base is unchanged afterwards.

    Args:
        concepts: at work beside the plain weights while this lasts: each in the regions that name it, at the weight
            that they give; one that no region names everywhere, at the weight given here. Fused ones need not be named.
        on_step: called after each step; when it returns False, the work stops and finished pictures are returned.

    Raises:
        InputError: a prompt or region names a concept that is not loaded, a size or sampler that the base cannot do,
            no memory.
    """
    height, width = _size(base, config)
    for name in ("detail", "composite"):
        if getattr(config, name) and not config.regions:
            raise InputError(f"{name} is {getattr(config, name)} and there are no regions; give each subject one")
    concepts = concepts or {}
    if concepts:
        listed = {concept.name: weight for concept, weight in concepts.items()}
        config = replace(config, notes={**config.notes, "Concepts": format_weights(listed)})
    live = Live.of(concepts)
    _tell_control(base, config, (height, width))
    for note in unheeded(base, config):
        logger.warning("%s", note)
    tell_overlaps(config.regions, base.latent_shape(height, width)[1:])
    pictures: list[Picture] = []
    with concepts_known(base, concepts), _memory_advice(width, height):
        for number in range(config.num_images):
            begin = Pass((height, width), config.seed + number, start_of(base, config, (height, width)))
            watch = _watcher(base, config, number, on_step)
            try:
                chosen, at_work, image = _first(base, config, live, begin, concepts, watch)
                image = _more_passes(base, chosen, at_work, image, begin.seed, concepts, watch)
            except Stopped:
                break
            parameters = to_parameters(base, replace(chosen, seed=begin.seed), height, width)
            pictures.append(Picture(image, begin.seed, parameters))
    return pictures


def _tell_control(base: Base, config: GenerateConfig, size: tuple[int, int]) -> None:
    """Say that the control picture is resized. Raises InputError where the base takes none."""
    if config.control is None:
        return
    base.check_control({}, config.control.net.name)
    given, wanted = config.control.image.size, size[::-1]
    if given != wanted:
        cut = "" if given[0] * wanted[1] == given[1] * wanted[0] else ", cut round its middle"
        logger.warning("the control image of %dx%d is resized to %dx%d%s", *given, *wanted, cut)


def _first(
    base: Base, config: GenerateConfig, live: Live, begin: Pass, concepts: Mapping[Placeable, float], watch: OnDenoising
) -> tuple[GenerateConfig, Live, Image.Image]:
    """The picture before any further pass, and the settings with the places that were found."""
    if config.composite:
        composed = composite(base, config, live, begin, concepts, watch)
        if composed is not None:
            return composed[0], live, composed[1]
        logger.warning(
            "no outlines of the subjects were found, or the prompt does not name them; they are drawn together, "
            "each bound to its place"
        )
        config = replace(config, composite=0.0, notes={**config.notes, "Composite": "no outlines found"})
    config, live = with_places(base, config, live, begin, concepts, watch)
    if config.init_image is not None and config.strength == 0:
        return config, live, fitted(config.init_image, begin.size)  # not through the autoencoder, which blurs
    return config, live, put_back(config, base.decode(draw(base, config, live, begin, watch))[0])


def _more_passes(
    base: Base,
    config: GenerateConfig,
    live: Live,
    image: Image.Image,
    seed: int,
    concepts: Mapping[Placeable, float],
    watch: OnDenoising,
) -> Image.Image:
    """The picture through all further passes that the settings ask for."""
    if config.upscale > 1:
        image = enlarge(base, config, live, image, seed, watch)
    if config.detail:
        image = refine(base, config, live, concepts, image, seed, watch)
    return image


def _watcher(base: Base, config: GenerateConfig, number: int, on_step: OnStep | None) -> OnDenoising:
    def watch(step: DenoisingStep) -> bool | None:
        if on_step is None:
            return None
        return on_step(Step(step.number, step.count, number + 1, config.num_images, step.latents, base))

    return watch


@contextmanager
def _memory_advice(width: int, height: int) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(
            f"no memory for a picture of {width}x{height}; lower the size, or use half precision"
        ) from error


def _size(base: Base, config: GenerateConfig) -> tuple[int, int]:
    """Height and width in pixels. Latents of uneven size are left to the denoiser, which rounds where it halves."""
    for name, value in (("height", config.height), ("width", config.width)):
        if value is not None and value % base.multiple:
            near = max(base.multiple, round(value / base.multiple) * base.multiple)
            raise InputError(f"{name} is {value}; give a multiple of {base.multiple}, such as {near}")
    return config.height or base.size, config.width or base.size
