"""Rehearsal: what the base draws without the subject stays as it is, so that concepts keep silent beside each other.

DreamBooth (Ruiz et al., 2023) preserves the prior with pictures of the class. Here the base denoises neutral prompts
before the training begins, and what it predicted on the way is remembered: the adapted base is to predict the same
(knowledge distillation, Hinton et al., 2015). Most of these prompts carry a decoy, a made-up trigger of random
vectors, so that a concept learns to answer to its own trigger and not to whatever word the base does not know.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline
from torch import Tensor

from spectral_fusion.pipeline.tokens import add_all_tokens, remove_all_tokens
from spectral_fusion.train.config import TrainConfig
from spectral_fusion.train.embeddings import class_embedding, word_like_noise
from spectral_fusion.train.neutral import DECOY, NeutralPrompt, neutral_prompts
from spectral_fusion.train.randomness import chance, generator, randint
from spectral_fusion.train.trainee import autocast, encode_captions

DECOYS = 0.8  # share of prompts with one
EMPTY = 0.15  # share of steps of which the prediction without a prompt is remembered as well
GUIDANCE_SCALE = 3.0
STEPS = (9, 10, 11)  # of one denoising; they differ so that timesteps do


@dataclass(frozen=True)
class Moment:
    """One step of the base's denoising.

    latents, prediction: (channels, height, width); prediction: the base's own at `timestep` with `caption`.
    """

    latents: Tensor
    timestep: int
    caption: str
    prediction: Tensor
    weight: float
    mask: None = None

    def problem(self, scheduler: DDPMScheduler) -> tuple[Tensor, Tensor]:
        """Noisy latents, and what the UNet should answer to them."""
        return self.latents, self.prediction


@dataclass(frozen=True)
class Rehearsal:
    """The base's remembered moments; `draw` is a function of its arguments and the seed alone."""

    moments: Sequence[Moment]
    seed: int

    def draw(self, step: int, index: int) -> Moment:
        """The moment that stands at `index` of the global batch of `step`."""
        return self.moments[randint(len(self.moments), generator(self.seed, "rehearsal", step, index))]


@contextmanager
def rehearsal(pipeline: StableDiffusionPipeline, config: TrainConfig) -> Iterator[list[Rehearsal]]:
    """Within the `with` block the pipeline knows the decoys that the rehearsal's captions speak of; none after it.

    Args:
        pipeline: the base, without the concept.
        config: resolved settings.

    Yields:
        One rehearsal, or none where the settings want none.
    """
    if config.rehearsal_prompts == 0:
        yield []
        return
    prompts = neutral_prompts(
        pipeline.tokenizer,
        config.class_word,
        config.rehearsal_prompts,
        generator(config.seed, "neutral prompts"),
        decoys=DECOYS,
    )
    decoys = {f"<decoy-{place}>": prompt for place, prompt in enumerate(prompts) if prompt.has_decoy}
    add_all_tokens(
        pipeline, {name: decoy_embeddings(pipeline, prompt, name, config) for name, prompt in decoys.items()}
    )
    try:
        captions = [prompt.text.replace(DECOY, f"<decoy-{place}>") for place, prompt in enumerate(prompts)]
        yield [Rehearsal(remember(pipeline, captions, config), config.seed)]
    finally:
        remove_all_tokens(pipeline, decoys)


def decoy_embeddings(
    pipeline: StableDiffusionPipeline, prompt: NeutralPrompt, name: str, config: TrainConfig
) -> Tensor:
    """(vectors, width): as a trained trigger could be: the first near the noun, the others noise."""
    source = generator(config.seed, name)
    noun = class_embedding(pipeline, prompt.noun)
    noise = word_like_noise(noun, config.vectors, source)
    near, far = 0.3 + 0.4 * torch.rand((), generator=source), 0.7 + 0.7 * torch.rand((), generator=source)
    return torch.cat([noun + near.to(noun) * noise[:1], far.to(noun) * noise[1:]])


@torch.no_grad()
def remember(pipeline: StableDiffusionPipeline, captions: Sequence[str], config: TrainConfig) -> list[Moment]:
    """Denoise the captions with guidance, and keep what the UNet was given and answered at each step."""
    moments = []
    size = config.resolution // pipeline.vae_scale_factor
    for number, start in enumerate(range(0, len(captions), config.batch_size)):
        part = list(captions[start : start + config.batch_size])
        source = generator(config.seed, "rehearsal", number)
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        scheduler.set_timesteps(STEPS[number % len(STEPS)])
        latents = torch.randn(len(part), pipeline.unet.config.in_channels, size, size, generator=source)
        latents = latents.to(pipeline.device)
        with autocast(pipeline, config):
            text = encode_captions(pipeline, [*part, *[""] * len(part)])
        for timestep in scheduler.timesteps:
            with autocast(pipeline, config):
                both = torch.cat([latents, latents]).to(pipeline.unet.dtype)
                answers = pipeline.unet(both, timestep, text, return_dict=False)[0].float()
            told, untold = answers.chunk(2)
            for place, caption in enumerate(part):
                kept = [(caption, told[place])] + ([("", untold[place])] if chance(EMPTY, source) else [])
                moments += [
                    Moment(latents[place].cpu(), int(timestep), words, answer.cpu(), config.rehearsal_weight)
                    for words, answer in kept
                ]
            latents = scheduler.step(untold + GUIDANCE_SCALE * (told - untold), timestep, latents).prev_sample
    return moments
