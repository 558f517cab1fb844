"""Prior distillation: what the base draws without the subject stays as it is.

DreamBooth (Ruiz et al., 2023) preserves the prior with pictures of the class. Here the base denoises neutral prompts
before the training begins, and its predictions on the way are kept: the adapted base is trained to predict the same
(knowledge distillation, Hinton et al., 2015). Most of these prompts carry a random trigger, so that a concept
responds to its own trigger and not to whatever word the base does not know.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spectral_fusion.base.interface import Base, Embeddings, words
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.data import Example
from spectral_fusion.training.embeddings import word_like_noise
from spectral_fusion.training.neutral import DECOY, NeutralPrompt, made_up_word, neutral_prompts
from spectral_fusion.training.randomness import chance, generator, randint

logger = logging.getLogger(__name__)

DECOYS = 0.8  # share of prompts with a random trigger
EMPTY = 0.15  # share of steps of which the prediction without a prompt is kept as well
GUIDANCE_SCALE = 3.0  # near the lower end of what people sample with: predictions stay close to the base's own
STEPS = (9, 10, 11)  # of one denoising; they differ so that timesteps do


@dataclass(frozen=True)
class Distillation:
    """Predictions of the base; `draw` is a function of its arguments and the seed alone."""

    examples: Sequence[Example]
    seed: int

    def draw(self, step: int, index: int) -> Example:
        """The example at `index` of the global batch of `step`."""
        return self.examples[randint(len(self.examples), generator(self.seed, "rehearsal", step, index))]


@dataclass
class Predictions:
    """What bases predicted on neutral prompts, made once and shared by trainings of one base, seed and class."""

    _known: dict[tuple, list[Example]] = field(default_factory=dict)

    def of(self, base: Base, captions: Sequence[str], config: ResolvedConfig) -> list[Example]:
        """As `base_predictions`; from memory where the same were asked for before."""
        settings = (config.seed, config.resolution, config.precision, config.batch_size, config.vectors)
        key = (base.fingerprint, tuple(captions), config.class_word, config.distillation_weight, *settings)
        if key not in self._known:
            self._known[key] = base_predictions(base, captions, config)
        return self._known[key]


@contextmanager
def distillation(base: Base, config: ResolvedConfig, predictions: Predictions) -> Iterator[list[Distillation]]:
    """Within the `with` block the base knows the random triggers of the captions; none after it.

    Args:
        base: without the concept.

    Yields:
        One source of examples, or none where the settings want none.
    """
    if config.distillation_prompts == 0:
        yield []
        return
    prompts = neutral_prompts(
        base.vocabulary,
        config.class_word,
        config.distillation_prompts,
        generator(config.seed, "neutral prompts"),
        decoys=DECOYS,
    )
    if not base.texts:
        yield [Distillation(predictions.of(base, _with_made_up_words(prompts, config), config), config.seed)]
        return
    decoys = {f"<decoy-{place}>": prompt for place, prompt in enumerate(prompts) if prompt.has_decoy}
    with words(base, {name: random_trigger(base, prompt, name, config) for name, prompt in decoys.items()}):
        captions = [prompt.text.replace(DECOY, f"<decoy-{place}>") for place, prompt in enumerate(prompts)]
        yield [Distillation(predictions.of(base, captions, config), config.seed)]


def _with_made_up_words(prompts: Sequence[NeutralPrompt], config: ResolvedConfig) -> list[str]:
    """Where words stay frozen a trigger is a rare word; so are its decoys."""
    source = generator(config.seed, "made-up words")
    return [prompt.text.replace(DECOY, f"<{made_up_word(source)}>") for prompt in prompts]


def random_trigger(base: Base, prompt: NeutralPrompt, name: str, config: ResolvedConfig) -> Embeddings:
    """(vectors, width) for each text part: as a trained trigger could be, the first near the noun, the others noise."""
    vectors: dict[str, Tensor] = {}
    for part, text in base.texts.items():
        source = generator(config.seed, name)
        noun = text.word_embedding(prompt.noun)
        noise = word_like_noise(noun, config.vectors, source)
        near, far = 0.3 + 0.4 * torch.rand((), generator=source), 0.7 + 0.7 * torch.rand((), generator=source)
        vectors[part] = torch.cat([noun + near.to(noun) * noise[:1], far.to(noun) * noise[1:]])
    return vectors


@torch.no_grad()
def base_predictions(base: Base, captions: Sequence[str], config: ResolvedConfig) -> list[Example]:
    """Denoise the captions with guidance, and keep what the denoiser was given and answered at each step."""
    examples = []
    for number, start in enumerate(range(0, len(captions), config.batch_size)):
        part = list(captions[start : start + config.batch_size])
        logger.info("drawing what is to stay as it is: prompt %d of %d", start + len(part), len(captions))
        source = generator(config.seed, "rehearsal", number)
        noise = torch.randn(len(part), *base.latent_shape(config.resolution, config.resolution), generator=source)
        with base.autocast(config.precision):
            told = base.condition([*part, *[""] * len(part)])
            for step in base.denoise(
                told[: len(part)],
                noise,
                sampler=base.plain_sampler,
                steps=STEPS[number % len(STEPS)],
                uncondition=told[len(part) :],
                guidance_scale=GUIDANCE_SCALE,
            ):
                for place, caption in enumerate(part):
                    kept = [(caption, step.conditional[place])]
                    if chance(EMPTY, source) and step.unconditional is not None:
                        kept.append(("", step.unconditional[place]))
                    examples += [
                        Example(
                            step.given[place].cpu(),
                            answer.float().cpu(),
                            step.time.item(),
                            text,
                            config.distillation_weight,
                        )
                        for text, answer in kept
                    ]
    return examples
