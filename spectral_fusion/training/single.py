"""Training as a function: a base, pictures and settings in, a concept out. No library, no folder, no lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from spectral_fusion.base.attach import adapter_name, collect
from spectral_fusion.base.interface import Base
from spectral_fusion.concept import Concept
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.spectral import Band, Triplets
from spectral_fusion.training.captions import with_trigger
from spectral_fusion.training.checkpoint import Checkpoint
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.context import TrainedSubject, contexts, settings_with
from spectral_fusion.training.data import LatentPictures
from spectral_fusion.training.distillation import Predictions
from spectral_fusion.training.loop import Loop, Progress
from spectral_fusion.training.model import MakeAdapter, TrainingModel, check_untouched, target_layers, training_model
from spectral_fusion.training.processes import deterministic
from spectral_fusion.training.watch import Likeness, draw_samples, in_one_row, probe_loss

T = TypeVar("T")
OnStep = Callable[[Loop, Progress], None]
"""Called after each step. What it raises ends the training."""


@dataclass(frozen=True)
class TrainingContext:
    """What a training takes into account besides its own pictures.

    others: frozen concepts that the new one is to work beside.
    class_pictures: pictures of the class in general, for prior preservation.
    predictions: what the base predicted for earlier trainings, to be shared.
    start: an earlier training of the same concept, to go on from.
    validation: pictures to measure on; None: those that are learned.
    """

    others: Sequence[TrainedSubject] = ()
    class_pictures: ImageFolder | None = None
    predictions: Predictions | None = None
    start: Concept | None = None
    validation: ImageFolder | None = None


def train(
    base: Base,
    images: ImageFolder,
    config: ResolvedConfig,
    band: Band,
    context: TrainingContext | None = None,
    *,
    bases: Mapping[str, Triplets] | None = None,
    facts: dict[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
    on_step: OnStep | None = None,
) -> Concept:
    """Train a concept. The same arguments give the same concept, also when continued from a checkpoint of it.

    The base is afterwards, bit for bit, as before.

    Args:
        images: pictures of one subject.
        bases: the band of each target layer, where the base was cast since; None: of the weights as they are.
        facts: what the concept's file keeps of how it was trained; the settings if None.
        checkpoint: continue from here.

    Raises:
        InputError: something that was given cannot be used, or the training diverged or taught nothing.
    """
    kept = config.result_settings() if facts is None else facts
    pictures = [subject_pictures(base, images, config)]
    if context is not None and context.class_pictures is not None:
        pictures.append(_class_pictures(base, context.class_pictures, config))

    def result(loop: Loop) -> Concept:
        loop.check_moved()
        return collect(
            base,
            adapter_name(config.name),
            name=config.name,
            trigger=config.trigger,
            class_word=config.class_word,
            base_name=kept.get("base", ""),
            training=kept,
        )

    return train_adapter(
        base, pictures, config, band, context, result, bases=bases, checkpoint=checkpoint, on_step=on_step
    )


def train_adapter(
    base: Base,
    pictures: Sequence[LatentPictures],
    config: ResolvedConfig,
    band: Band,
    context: TrainingContext | None,
    result: Callable[[Loop], T],
    *,
    adapter: MakeAdapter | None = None,
    bases: Mapping[str, Triplets] | None = None,
    prepare: Callable[[TrainingModel], TrainingModel] = lambda model: model,
    checkpoint: Checkpoint | None = None,
    on_step: OnStep | None = None,
) -> T:
    """`train` for adapters of any kind: returns what `result` makes of the trained base, while the adapter is on it.

    Args:
        pictures: each step takes a batch of each of them.
        prepare: finishes the adapter when it is on the base, before the first step; returns the model to train.
    """
    context = context or TrainingContext()
    config = settings_with(base, config, context.others)
    check_untouched(base)
    target_layers(base, config)
    with (
        deterministic(base.device),
        contexts(base, config, context.others, context.predictions) as places,
        training_model(base, config, band, adapter=adapter, bases=bases, start=context.start) as model,
    ):
        loop = Loop(prepare(model), pictures, config, places)
        if checkpoint is not None:
            loop.load_state(checkpoint.step, checkpoint.tensors, checkpoint.facts["loop"])
        measured = pictures[0] if context.validation is None else subject_pictures(base, context.validation, config)
        likeness = Likeness(base)
        while not loop.is_over:
            progress = _observed(loop, measured, likeness, loop.advance())
            if on_step is not None:
                on_step(loop, progress)
        loop.finish()
        return result(loop)


def subject_pictures(base: Base, images: ImageFolder, config: ResolvedConfig, weight: float = 1.0) -> LatentPictures:
    """The pictures of the subject, its trigger in every caption."""
    own = [p.caption and with_trigger(p.caption, config.trigger, config.class_word) for p in images.photos]
    subject = f"{config.trigger} {config.class_word}"
    return LatentPictures(base, images, config, subject=subject, captions=own, weight=weight)


def _class_pictures(base: Base, images: ImageFolder, config: ResolvedConfig) -> LatentPictures:
    captions = [photo.caption for photo in images.photos]
    return LatentPictures(
        base, images, config, subject=config.class_word, captions=captions, weight=config.prior_weight
    )


def _observed(loop: Loop, pictures: LatentPictures, likeness: Likeness, progress: Progress) -> Progress:
    """The step as it is told: with what was measured after it, on the moving average where one is kept."""
    config = loop.config
    with loop.averaged():
        if config.validate_every and loop.step % config.validate_every == 0:
            progress = replace(progress, probe_loss=(loss := probe_loss(loop.model, pictures)))
            loop.patience.measure(loss)
        if config.sample_every and loop.step % config.sample_every == 0:
            samples = draw_samples(loop.model.base, config)
            progress = replace(progress, samples=in_one_row(samples), likeness=likeness(samples, pictures.folder))
    return replace(progress, is_over=loop.patience.is_over)
