"""Training pictures as latents: aspect buckets, crops, flips, the order of an epoch, the cache."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from diffusers.training_utils import find_nearest_bucket, generate_aspect_ratio_buckets
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from spectral_fusion.base.condition import Frame, Posterior
from spectral_fusion.base.interface import Base
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.training.captions import TEMPLATES, draw_caption
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.randomness import chance, generator, permutation

logger = logging.getLogger(__name__)

Position = tuple[float, float]
"""Share of a picture's slack that is cut off on the left and at the top, each in [0, 1]."""
CENTRE: Position = (0.5, 0.5)


@dataclass(frozen=True)
class Example:
    """One place of a batch: noisy latents, and what the denoiser should answer to them.

    noisy, target: (channels, height, width); mask: (1, height, width) in [0, 1], None for all ones; weight: of the
    loss; frame: which part of its picture this is, None for a whole one.
    """

    noisy: Tensor
    target: Tensor
    time: float
    caption: str
    weight: float
    mask: Tensor | None = None
    frame: Frame | None = None


class Source(Protocol):
    """Where examples come from."""

    def draw(self, step: int, index: int) -> Example:
        """The example at `index` of the global batch of `step`: a function of its arguments and the settings."""


def buckets(resolution: int, divisibility: int, *, aspect: bool) -> list[tuple[int, int]]:
    """(height, width) of the picture sizes to train at, each of about `resolution`² pixels; only the square one if not
    `aspect`. Sides are multiples of `divisibility`, which the denoiser's halvings need."""
    if aspect:
        return generate_aspect_ratio_buckets(resolution, divisibility=divisibility)
    side = max(divisibility, round(resolution / divisibility) * divisibility)
    return [(side, side)]


def crop_box(size: tuple[int, int], bucket: tuple[int, int], position: Position) -> tuple[float, float, float, float]:
    """The largest box (left, top, right, bottom) of the bucket's shape in a picture.

    Args:
        size: (width, height) of the picture.
        bucket: (height, width).
    """
    width, height = size
    scale = min(width / bucket[1], height / bucket[0])
    box_width, box_height = min(width, bucket[1] * scale), min(height, bucket[0] * scale)
    left, top = (width - box_width) * position[0], (height - box_height) * position[1]
    return left, top, min(width, left + box_width), min(height, top + box_height)


def frame_of(size: tuple[int, int], bucket: tuple[int, int], position: Position, flip: bool) -> Frame:
    """What `crop` shows of a picture of `size` (width, height)."""
    width, height = size
    left, top, right, _ = crop_box(size, bucket, position)
    scale = bucket[1] / (right - left)
    outside = width - right if flip else left
    return Frame((height, width), (round(top * scale), round(outside * scale)), bucket)


def crop(picture: Image.Image, bucket: tuple[int, int], position: Position, flip: bool) -> Image.Image:
    """`picture` cut and scaled to `bucket`, mirrored if `flip`."""
    box = crop_box(picture.size, bucket, position)
    picture = picture.resize(bucket[::-1], Image.Resampling.LANCZOS, box=box)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture


@lru_cache(maxsize=2)
def _epoch_order(seed: int, purpose: str, epoch: int, length: int) -> list[int]:
    return permutation(length, seed, purpose, "epoch", epoch)


class Encoded(NamedTuple):
    """A cropped picture as the autoencoder sees it, its mask (1, height, width), and where it was cropped."""

    posterior: Posterior
    mask: Tensor | None
    frame: Frame


class LatentPictures:
    """The pictures of a folder as latents.

    What `draw` returns depends on its arguments and the settings alone, never on what was drawn before.
    """

    def __init__(
        self,
        base: Base,
        folder: ImageFolder,
        config: ResolvedConfig,
        *,
        subject: str,
        captions: Sequence[str | None],
        weight: float = 1.0,
    ):
        """
        Args:
            subject: what caption templates speak of; it also names the random order of these pictures.
            captions: own caption of each photo, None for a template.
            weight: of the loss of these pictures.
        """
        self.base, self.folder, self.config, self.subject = base, folder, config, subject
        self.captions, self.weight = captions, weight
        self.places = [i for i, photo in enumerate(folder.photos) for _ in range(photo.repeats)]
        sizes = buckets(config.resolution, base.training_multiple, aspect=config.aspect_buckets)
        self.buckets = [sizes[find_nearest_bucket(p.height, p.width, sizes)] for p in folder.photos]
        self._cache: dict[tuple[int, bool], Encoded] = {}

    def draw(self, step: int, index: int) -> Example:
        """The picture at `index` of the global batch of `step`: each epoch shows every picture once, in a new order."""
        config = self.config
        epoch, place = divmod(step * config.batch_size + index, len(self.places))
        number = self.places[_epoch_order(config.seed, self.subject, epoch, len(self.places))[place]]
        source = generator(config.seed, self.subject, step, index)
        across, down = torch.rand(2, generator=source).tolist()
        flip = chance(0.5, source) and config.flip
        caption = draw_caption(self.captions[number], self.subject, config, source)
        time = self.base.draw_time(source)
        encoded = self._encoded(number, (across, down) if config.random_crop else CENTRE, flip)
        return self._example(encoded, time, caption, config.noise_offset, source)

    def fixed(self, number: int, time: float) -> Example:
        """Photo `number`, centred and unflipped, with a noise that is the same in every training of this seed."""
        source = generator(self.config.seed, self.subject, "validation", number, time)
        caption = self.captions[number] or TEMPLATES[0].format(self.subject)
        return self._example(self._encoded(number, CENTRE, False), time, caption, 0.0, source)

    def _example(
        self, encoded: Encoded, time: float, caption: str, noise_offset: float, source: torch.Generator
    ) -> Example:
        shape = encoded.posterior.mean.shape
        latents = encoded.posterior.sample(torch.randn(shape, generator=source))
        noise = torch.randn(shape, generator=source)
        noise = noise + noise_offset * torch.randn(shape[0], 1, 1, generator=source)
        noisy, target = self.base.problem(latents[None], noise[None], torch.tensor([time]))
        return Example(noisy[0], target[0], time, caption, self.weight, encoded.mask, encoded.frame)

    def _encoded(self, number: int, position: Position, flip: bool) -> Encoded:
        encoded = self._cache.get((number, flip)) or self._encode(number, position, flip)
        if self.config.cache_latents:
            self._cache[number, flip] = encoded
        return encoded

    def _encode(self, number: int, position: Position, flip: bool) -> Encoded:
        """One picture at a time: a batch of large ones is what runs out of memory."""
        photo, bucket = self.folder.photos[number], self.buckets[number]
        logger.info("encoding picture %d of %d", number + 1, len(self.folder.photos))
        picture = self.folder.read(photo)
        pixels = _pixels(crop(picture, bucket, position, flip)) * 2 - 1
        whole = self.base.encode(pixels[None])
        posterior = Posterior(whole.mean[0], whole.std[0], whole.scale, whole.shift)
        mask = None
        if self.config.masked_loss and (shown := self.folder.read_mask(photo)) is not None:
            mask = adaptive_avg_pool2d(_pixels(crop(shown, bucket, position, flip)), posterior.mean.shape[-2:])
        return Encoded(posterior, mask, frame_of(picture.size, bucket, position, flip))


def _pixels(picture: Image.Image) -> Tensor:
    """(channels, height, width) in [0, 1]."""
    return torch.from_numpy(np.atleast_3d(np.array(picture))).permute(2, 0, 1).float() / 255
