"""Looking at a training without touching it: a validation loss that has no luck in it, and grids of samples."""

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import make_image_grid
from PIL import Image

from spectral_fusion.pipeline.samplers import make_sampler
from spectral_fusion.train.captions import PLACEHOLDER, TEMPLATES
from spectral_fusion.train.config import TrainConfig
from spectral_fusion.train.data import LatentPictures
from spectral_fusion.train.trainee import Trainee, autocast

VALIDATION_PHOTOS = 16
VALIDATION_TIMESTEPS = 8
SAMPLER = "DPM++ 2M"
SAMPLE_STEPS = 20
GUIDANCE_SCALE = 5.0


@torch.no_grad()
def validation_loss(trainee: Trainee, pictures: LatentPictures) -> float:
    """Mean unweighted loss of the first pictures at evenly spread timesteps.

    Pictures, crops, noises and timesteps are the same at every call, so the figure moves only when the weights do.
    """
    spread = [int((k + 0.5) / VALIDATION_TIMESTEPS * pictures.timesteps) for k in range(VALIDATION_TIMESTEPS)]
    numbers = range(min(len(pictures.folder.photos), VALIDATION_PHOTOS))
    losses = [trainee.losses([pictures.fixed(number, timestep) for timestep in spread]) for number in numbers]
    return float(torch.cat(losses).mean())


@torch.no_grad()
def sample(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int, size: int) -> list[Image.Image]:
    """One square picture of `size` pixels, in whole eights, for each prompt, all from the same seed."""
    components = pipeline.components | {"scheduler": make_sampler(pipeline, SAMPLER)}
    sampler = type(pipeline)(**components, requires_safety_checker=False)
    sampler.set_progress_bar_config(disable=True)
    return [
        sampler(
            prompt,
            num_inference_steps=SAMPLE_STEPS,
            guidance_scale=GUIDANCE_SCALE,
            height=size // 8 * 8,
            width=size // 8 * 8,
            generator=torch.Generator("cpu").manual_seed(seed),
        ).images[0]
        for prompt in prompts
    ]


def sample_grid(trainee: Trainee, config: TrainConfig) -> Image.Image:
    """The sample prompts as the adapter draws them now, in one row."""
    wanted = config.sample_prompts or (default_prompt(config), f"a {PLACEHOLDER} {config.class_word} on grass")
    prompts = [prompt.replace(PLACEHOLDER, config.trigger) for prompt in wanted]
    with autocast(trainee.pipeline, config):
        pictures = sample(trainee.pipeline, prompts, config.seed, config.resolution)
    return make_image_grid(pictures, rows=1, cols=len(pictures))


def preview(trainee: Trainee, config: TrainConfig) -> Image.Image:
    """One picture of the subject."""
    prompt = default_prompt(config).replace(PLACEHOLDER, config.trigger)
    with autocast(trainee.pipeline, config):
        return sample(trainee.pipeline, [prompt], config.seed, config.resolution)[0]


def default_prompt(config: TrainConfig) -> str:
    return TEMPLATES[0].format(f"{PLACEHOLDER} {config.class_word}")
