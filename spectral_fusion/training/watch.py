"""Looking at a training without changing it: a loss on fixed noise and timesteps, samples, and how like they are."""

import torch
from diffusers.utils import make_image_grid
from PIL import Image

from spectral_fusion.base.interface import Base
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.training.captions import PLACEHOLDER, TEMPLATES
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.data import LatentPictures
from spectral_fusion.training.model import TrainingModel

PROBE_PHOTOS = 16
PROBE_TIMES = 8
SAMPLER = "DPM++ 2M"
SAMPLE_STEPS = 20
GUIDANCE_SCALE = 5.0


@torch.no_grad()
def probe_loss(model: TrainingModel, pictures: LatentPictures) -> float:
    """Mean unweighted loss of the first training pictures at evenly spread timesteps.

    Pictures, crops, noises and timesteps are the same at every call, so the figure is comparable between steps. The
    pictures are those that are learned: it says nothing of others.
    """
    times = model.base.even_times(PROBE_TIMES)
    numbers = range(min(len(pictures.folder.photos), PROBE_PHOTOS))
    losses = [model.losses([pictures.fixed(number, time) for time in times]) for number in numbers]
    return float(torch.cat(losses).mean())


def sample(base: Base, prompts: list[str], seed: int, size: int) -> list[Image.Image]:
    """One square picture of `size` pixels, in whole multiples of the base's, for each prompt, all from one seed."""
    side = size // base.multiple * base.multiple
    pictures = []
    for prompt in prompts:
        told = base.condition(["", prompt], weighted=True)
        source = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn(1, *base.latent_shape(side, side), generator=source, dtype=told.embeds.dtype)
        *_, last = base.denoise(
            told[1:],
            noise,
            sampler=SAMPLER,
            steps=SAMPLE_STEPS,
            uncondition=told[:1],
            guidance_scale=GUIDANCE_SCALE,
            generator=source,
        )
        pictures += base.decode(last.latents)
    return pictures


def draw_samples(base: Base, config: ResolvedConfig) -> list[Image.Image]:
    """The sample prompts as the adapter draws them now."""
    wanted = config.sample_prompts or (default_prompt(config), f"a {PLACEHOLDER} {config.class_word} on grass")
    prompts = [prompt.replace(PLACEHOLDER, config.trigger) for prompt in wanted]
    with base.autocast(config.precision):
        return sample(base, prompts, config.seed, config.resolution)


def in_one_row(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size side by side."""
    return make_image_grid(pictures, rows=1, cols=len(pictures))


class Likeness:
    """How like the photos of one training samples are, by the base's own scorer of identities."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._photos: torch.Tensor | None = None

    def __call__(self, samples: list[Image.Image], images: ImageFolder) -> float | None:
        """The mean cosine of samples and photos; None where the base has no scorer."""
        scorers = self.base.scorers()
        if scorers is None:
            return None
        if self._photos is None:
            photos = [images.read(photo) for photo in images.photos[:PROBE_PHOTOS]]
            self._photos = scorers.embed_identity(photos)
        return float((scorers.embed_identity(samples) @ self._photos.T).mean())


def preview(base: Base, config: ResolvedConfig) -> Image.Image:
    """One picture of the subject."""
    prompt = default_prompt(config).replace(PLACEHOLDER, config.trigger)
    with base.autocast(config.precision):
        return sample(base, [prompt], config.seed, config.resolution)[0]


def default_prompt(config: ResolvedConfig) -> str:
    return TEMPLATES[0].format(f"{PLACEHOLDER} {config.class_word}")
