"""Training beside other concepts, so that all of them stay themselves in one picture.

In half of the steps the other concepts' deltas are in the weights. There the subject's own pictures are learned as
always, and what base and other concepts draw together is distilled, so the new concept works with theirs in place and
leaves their pictures as they are ("Learning without Forgetting", Li and Hoiem, 2016). The other concepts stay frozen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

from spectral_fusion.base.interface import Base, Embeddings, words
from spectral_fusion.base.live import live_deltas
from spectral_fusion.base.merged import MergedWeights
from spectral_fusion.spectral import Factors, sum_factors
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.data import Source
from spectral_fusion.training.distillation import Distillation, Predictions, base_predictions, distillation
from spectral_fusion.training.neutral import DECOY, neutral_prompts
from spectral_fusion.training.randomness import generator

PLAIN = 1 / 3  # share of the distilled prompts that name none of the other concepts


class TrainedSubject(Protocol):
    """A trained subject; a `Concept` is one."""

    @property
    def name(self) -> str: ...
    @property
    def trigger(self) -> str: ...
    @property
    def class_word(self) -> str: ...
    @property
    def embeddings(self) -> Embeddings: ...
    @property
    def layers(self) -> Mapping[str, Any]: ...

    def factors(self, layer: str) -> Factors:
        """The delta of one layer at weight one."""


@dataclass(frozen=True)
class Context:
    """What a step can take place in: other weights, and what is learned there besides the pictures.

    within: the step is done inside of it.
    """

    sources: Sequence[Source] = ()
    within: Callable[[], AbstractContextManager[None]] = nullcontext


def merged_subjects(base: Base, subjects: Sequence[TrainedSubject]) -> MergedWeights:
    """The weights of a base with the sum of these subjects' deltas."""
    names = list(dict.fromkeys(name for subject in subjects for name in subject.layers))
    return MergedWeights(
        base,
        names,
        lambda layer: sum_factors([subject.factors(layer) for subject in subjects if layer in subject.layers]),
    )


def live_subjects(base: Base, subjects: Sequence[TrainedSubject]) -> Callable[[], AbstractContextManager[None]]:
    """The same beside weights that nothing can be added to, the quantised ones: slower, and as exact."""
    names = list(dict.fromkeys(name for subject in subjects for name in subject.layers))
    deltas = {
        name: sum_factors([subject.factors(name) for subject in subjects if name in subject.layers]) for name in names
    }
    return lambda: live_deltas(base, deltas)


@contextmanager
def contexts(
    base: Base, config: ResolvedConfig, others: Sequence[TrainedSubject] = (), predictions: Predictions | None = None
) -> Iterator[list[Context]]:
    """The contexts that steps take place in: alone, and with the other concepts where there are any.

    Within the `with` block the base knows the triggers that the captions speak of; afterwards it is as before.

    Args:
        base: without the concept.
        predictions: kept from other trainings on this base.
    """
    with distillation(base, config, predictions or Predictions()) as alone:
        if not others:
            yield [Context(alone)]
            return
        within = live_subjects(base, others) if base.quantised else merged_subjects(base, others).present
        with words(base, {other.trigger: other.embeddings for other in others}):
            together = []
            if config.distillation_prompts:
                captions = context_captions(base, config, others)
                with within():
                    together = [Distillation(base_predictions(base, captions, config), config.seed)]
            yield [Context(alone), Context(together, within)]


def context_captions(base: Base, config: ResolvedConfig, others: Sequence[TrainedSubject]) -> list[str]:
    """Prompts about each of the other concepts in turn, and plain ones."""
    count = config.distillation_prompts
    plain = round(count * PLAIN)
    captions = []
    for place, other in enumerate(others):
        share = len(range(place, count - plain, len(others)))
        source = generator(config.seed, "neighbour", other.trigger)
        for prompt in neutral_prompts(base.vocabulary, other.class_word, share, source, decoys=1.0):
            subject = f"{other.trigger} {other.class_word}"
            captions.append(prompt.text.replace(f"{DECOY} {prompt.noun}", subject))
    source = generator(config.seed, "among neighbours")
    return captions + [p.text for p in neutral_prompts(base.vocabulary, config.class_word, plain, source, decoys=0.0)]


def settings_with(base: Base, config: ResolvedConfig, others: Sequence[TrainedSubject]) -> ResolvedConfig:
    """Without a cache of captions where other concepts change a text encoder: it would mix two kinds of embeddings."""
    denoiser = f"{next(iter(base.parts))}."
    changed = any(not layer.startswith(denoiser) for other in others for layer in other.layers)
    return replace(config, cache_text=False) if changed else config
