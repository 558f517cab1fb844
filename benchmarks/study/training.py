"""Training one concept of a family, or all of a set in one adapter, with the product's own loop."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import torch
from diffusers import StableDiffusionPipeline

from spectral_fusion.concept import Concept, base_fingerprint
from spectral_fusion.concept.attach import adapter_name, smallest_directions
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.lora import Lora, collect_lora
from spectral_fusion.pipeline.tokens import add_tokens, remove_all_tokens, token_ids
from spectral_fusion.spectral import Band
from spectral_fusion.train.config import LEARNING_RATES, TrainConfig
from spectral_fusion.train.embeddings import TrainableRows, first_embeddings
from spectral_fusion.train.job import subject_pictures
from spectral_fusion.train.loop import Lesson, Loop
from spectral_fusion.train.neighbours import MOST, lessons
from spectral_fusion.train.run import images_digest, run_facts
from spectral_fusion.train.trainee import Trainee, target_layers, trainee
from study.activations import Grams
from study.adapting import AfterStep, PenalisedTrainee, adapter_config, prepare
from study.failure import Diverged
from study.families import Family
from study.identities import Subject, study_subjects
from study.settings import Settings

Adapter: TypeAlias = Concept | Lora

# What the factors of the study multiply. Not the preset's, so that runs stay comparable when that changes.
STARTING_RATES = {
    "learning_rate_embedding": 2e-3,
    "learning_rate_text_encoder": 0.0,
    "learning_rate_unet": 5e-3,
}
ROTATIONAL_STARTING_RATES = {"learning_rate_unet": 3e-2}


@dataclass(frozen=True)
class Job:
    """One training.

    subjects: one, or all of a set for a joint family.
    slot: which of the study's places the concept takes, and so its band.
    factor: what `STARTING_RATES` is multiplied by.
    """

    family: Family
    subjects: tuple[Subject, ...]
    slot: int
    seed: int
    factor: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """A job as the loop takes it: resolved settings, the band, and the facts that its result depends on."""

    config: TrainConfig
    band: Band
    facts: dict[str, Any]


def neighbour_jobs(job: Job, settings: Settings) -> list[Job]:
    """The trainings beside whose results this one is done: of the set's concepts before it, those that a library gives.

    That is those of its own class first, then those of the lowest bands, and not more than `MOST`.
    """
    if not job.family.beside:
        return []
    subjects, own = study_subjects(job.seed, settings.slots), job.subjects[0]
    before = sorted(range(job.slot), key=lambda slot: (subjects[slot].class_word != own.class_word, slot))
    return [replace(job, subjects=(subjects[slot],), slot=slot) for slot in before[:MOST]]


def make_recipe(
    pipeline: StableDiffusionPipeline, job: Job, folders: Sequence[ImageFolder], settings: Settings
) -> Recipe:
    """What a job comes to on a base.

    Raises:
        InputError: a layer has no room for the band.
    """
    config = _config(pipeline, job, settings)
    directions = smallest_directions(layer.weight for layer in target_layers(pipeline, config).values())
    rank = job.family.rank(settings.rank, settings.slots, directions) * len(job.subjects)
    band = Band(job.family.band(job.slot, rank, directions), rank)
    if band.depth > directions and job.family.kind in ("additive", "rotational"):
        raise InputError(
            f"{job.family.name} in slot {job.slot} at rank {rank} needs {band.depth} directions, the base has "
            f"{directions}; lower the rank or the number of slots"
        )
    config = replace(config, rank=rank, band=band.index)
    facts = {
        "family": asdict(job.family),
        "slot": job.slot,
        "slots": settings.slots,
        "base_fingerprint": base_fingerprint(pipeline),
        "subjects": [images_digest(folder) for folder in folders],
        **run_facts(config, folders[0], {j.subjects[0].name: f"slot {j.slot}" for j in neighbour_jobs(job, settings)}),
    }
    del facts["band_side"]  # the family says which band; the side to choose from changes nothing
    return Recipe(config, band, json.loads(json.dumps(facts)))


def train(
    pipeline: StableDiffusionPipeline,
    job: Job,
    recipe: Recipe,
    folders: Sequence[ImageFolder],
    settings: Settings,
    neutral: Grams,
    beside: Sequence[Adapter],
) -> tuple[list[Adapter], float]:
    """Train a job; the pipeline is afterwards as before.

    Args:
        folders: the photos of each subject.
        beside: what `neighbour_jobs` came to.
        neutral: inputs of the base on neutral prompts; used by families with a penalty only.

    Returns:
        An adapter for each subject, and the seconds that the steps took. Of a joint job the first holds the delta.

    Raises:
        Diverged: the loss or a trained tensor is not finite.
    """
    family, config = job.family, recipe.config
    frozen = replace(config, learning_rate_embedding=0.0)  # the rows of all subjects train, see `_trained_tokens`
    try:
        with (
            lessons(pipeline, config, beside) as taught,
            _tokens(pipeline, job.subjects[1:], config),
            trainee(pipeline, frozen, recipe.band, adapter=adapter_config(pipeline, family, settings.slots)) as learner,
        ):
            after_step = prepare(pipeline, family, adapter_name(config.name), recipe.band, job.slot, settings.slots)
            if family.neutral_penalty:
                learner = PenalisedTrainee(pipeline, frozen, family.neutral_penalty, neutral)
            with _trained_tokens(pipeline, job.subjects):
                begin = time.perf_counter()
                _run(learner, job, config, folders, taught, after_step)
                seconds = time.perf_counter() - begin
                return _collect(pipeline, job, recipe), seconds
    finally:
        pipeline.unload_lora_weights()


def _config(pipeline: StableDiffusionPipeline, job: Job, settings: Settings) -> TrainConfig:
    resolution = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    chosen = STARTING_RATES | (ROTATIONAL_STARTING_RATES if job.family.kind == "rotational" else {})
    turned = LEARNING_RATES[:1] if job.family.kind == "embeddings" else LEARNING_RATES[1:]
    given: dict[str, Any] = {name: chosen[name] * (job.factor if name in turned else 1.0) for name in LEARNING_RATES}
    if job.family.target is not None:
        given["target"] = job.family.target
    first = job.subjects[0]
    config = TrainConfig(
        name=first.name,
        class_word=first.class_word,
        base=pipeline.config.get("_name_or_path") or "a loaded pipeline",
        mode="rotational" if job.family.kind == "rotational" else "additive",
        steps=settings.steps,
        batch_size=settings.batch_size,
        rehearsal_prompts=settings.rehearsal_prompts,
        seed=job.seed,
        **given,
    )
    return config.resolved(
        resolution=resolution, prediction_type=pipeline.scheduler.config.prediction_type, precision="fp32"
    )


def _run(
    learner: Trainee,
    job: Job,
    config: TrainConfig,
    folders: Sequence[ImageFolder],
    taught: Sequence[Lesson],
    after_step: AfterStep,
) -> None:
    """Each subject sees `steps` batches of its own photos, alone or jointly; jointly the losses are averaged."""
    pictures = [
        subject_pictures(learner.pipeline, folder, _named(config, subject))
        for subject, folder in zip(job.subjects, folders, strict=True)
    ]
    for part in pictures:
        part.weight = 1 / len(pictures)
    loop = Loop(learner, pictures, config, taught)
    while loop.step < config.steps:
        try:
            loop.advance()
        except InputError as error:  # the one thing that `advance` raises: the loss is not finite
            raise Diverged(str(error)) from error
        after_step()


def _collect(pipeline: StableDiffusionPipeline, job: Job, recipe: Recipe) -> list[Adapter]:
    config, first = recipe.config, job.subjects[0]
    adapters: list[Adapter]
    if job.family.kind in ("additive", "rotational"):
        try:
            concept = Concept.from_pipeline(
                pipeline,
                adapter_name(config.name),
                name=first.name,
                trigger=first.trigger,
                class_word=first.class_word,
                base_name=config.base,
                training=recipe.facts,
            )
        except InputError as error:  # a concept refuses tensors that are not finite
            raise Diverged(str(error)) from error
        adapters = [concept]
    else:
        lora = collect_lora(pipeline, config, recipe.facts)
        adapters = [replace(lora, layers={}) if job.family.kind == "embeddings" else lora]
    adapters += [_tokens_only(pipeline, subject, recipe.facts) for subject in job.subjects[1:]]
    for adapter in adapters:
        _check_finite(adapter)
    return adapters


def _tokens_only(pipeline: StableDiffusionPipeline, subject: Subject, facts: Mapping[str, Any]) -> Lora:
    ids = token_ids(pipeline, subject.trigger)
    rows = pipeline.text_encoder.get_input_embeddings().weight[ids].detach().float().cpu().clone()
    return Lora(subject.name, subject.trigger, subject.class_word, {}, rows, dict(facts))


def _check_finite(adapter: Adapter) -> None:
    tensors = [adapter.embeddings, *(part for name in adapter.layers for part in adapter.factors(name))]
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise Diverged(f"tensors of {adapter.name} hold NaN or infinity")


def _named(config: TrainConfig, subject: Subject) -> TrainConfig:
    return replace(config, name=subject.name, trigger=subject.trigger, class_word=subject.class_word)


@contextmanager
def _tokens(pipeline: StableDiffusionPipeline, subjects: Sequence[Subject], config: TrainConfig) -> Iterator[None]:
    """Tokens of subjects beside the first, which `trainee` brings itself; they start like its own."""
    for subject in subjects:
        add_tokens(pipeline, subject.trigger, first_embeddings(pipeline, _named(config, subject)))
    try:
        yield
    finally:
        remove_all_tokens(pipeline, [subject.trigger for subject in subjects])


@contextmanager
def _trained_tokens(pipeline: StableDiffusionPipeline, subjects: Sequence[Subject]) -> Iterator[None]:
    """Let the rows of all subjects' tokens train."""
    embedding = pipeline.text_encoder.get_input_embeddings()
    ids = [number for subject in subjects for number in token_ids(pipeline, subject.trigger)]
    pipeline.text_encoder.set_input_embeddings(TrainableRows(embedding, ids))
    try:
        yield
    finally:
        pipeline.text_encoder.set_input_embeddings(embedding)
