"""Training one concept of a family, or all of a set in one adapter, as the product trains."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from spectral_fusion.base.attach import adapter_name, collect, smallest_directions
from spectral_fusion.base.interface import Base, words
from spectral_fusion.base.presets import LEARNING_RATES
from spectral_fusion.concept import Concept
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.lora import Lora, collect_lora
from spectral_fusion.spectral import Band
from spectral_fusion.training.config import ResolvedConfig, TrainConfig
from spectral_fusion.training.embeddings import first_embeddings
from spectral_fusion.training.folder import MOST, images_digest, training_facts
from spectral_fusion.training.loop import Loop
from spectral_fusion.training.model import target_layers
from spectral_fusion.training.single import TrainingContext, subject_pictures, train_adapter
from study.activations import Grams
from study.adapting import Adaptation
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
    """A job as `train_adapter` takes it: photos of each subject, resolved settings, the band.

    slots: concepts that the base is divided among.
    facts: what its result depends on.
    """

    job: Job
    folders: Sequence[ImageFolder]
    slots: int
    config: ResolvedConfig
    band: Band
    facts: dict[str, Any]


def context_jobs(job: Job, settings: Settings) -> list[Job]:
    """The trainings whose results are this one's context: of the set's concepts before it, those that a library gives.

    That is those of its own class first, then those of the lowest bands, and not more than `MOST`.
    """
    if not job.family.in_context:
        return []
    subjects, own = study_subjects(job.seed, settings.slots), job.subjects[0]
    before = sorted(range(job.slot), key=lambda slot: (subjects[slot].class_word != own.class_word, slot))
    return [replace(job, subjects=(subjects[slot],), slot=slot) for slot in before[:MOST]]


def make_recipe(base: Base, job: Job, folders: Sequence[ImageFolder], settings: Settings) -> Recipe:
    """What a job comes to on a base.

    Raises:
        InputError: a layer has no room for the band.
    """
    config = _config(base, job, settings)
    directions = smallest_directions(layer.weight for layer in target_layers(base, config).values())
    rank = job.family.rank(settings.rank, settings.slots, directions) * len(job.subjects)
    band = Band(job.family.band(job.slot, rank, directions), rank)
    if band.depth > directions and job.family.is_spectral:
        raise InputError(
            f"{job.family.name} in slot {job.slot} at rank {rank} needs {band.depth} directions, the base has "
            f"{directions}; lower the rank or the number of slots"
        )
    config = replace(config, rank=rank, band=band.index)
    others = {other.subjects[0].name: f"slot {other.slot}" for other in context_jobs(job, settings)}
    facts = {
        "family": asdict(job.family),
        "slot": job.slot,
        "slots": settings.slots,
        "base_fingerprint": base.fingerprint,
        "subjects": [images_digest(folder) for folder in folders],
        **training_facts(config, folders[0], others),
    }
    del facts["band_side"]  # the family says which band; the side to choose from changes nothing
    return Recipe(job, folders, settings.slots, config, band, json.loads(json.dumps(facts)))


def train(base: Base, recipe: Recipe, neutral: Grams, context: TrainingContext) -> tuple[list[Adapter], float]:
    """Train a job; the base is afterwards as before.

    Each subject sees `steps` batches of its own photos, alone or jointly; jointly the losses are averaged.

    Args:
        neutral: inputs of the base on neutral prompts; used by families with a penalty only.
        context: with what `context_jobs` came to.

    Returns:
        An adapter for each subject, and the seconds that the steps took. Of a joint job the first holds the delta.

    Raises:
        Diverged: the loss or a trained tensor is not finite.
    """
    job = recipe.job
    configs = [_named(recipe.config, subject) for subject in job.subjects]
    triggers = [config.trigger for config in configs]
    adaptation = Adaptation(base, job.family, triggers, recipe.band, job.slot, recipe.slots, neutral)

    def result(loop: Loop) -> tuple[list[Adapter], float]:
        seconds = time.perf_counter() - adaptation.begun
        loop.check_moved()
        return _collect(base, recipe, configs), seconds

    with words(base, {config.trigger: first_embeddings(base, config) for config in configs[1:]}):
        return train_adapter(
            base,
            [subject_pictures(base, *pair, 1 / len(configs)) for pair in zip(recipe.folders, configs, strict=True)],
            recipe.config,
            recipe.band,
            context,
            result,
            adapter=adaptation.make,
            prepare=adaptation.prepare,
            on_step=adaptation.after_step,
        )


def _config(base: Base, job: Job, settings: Settings) -> ResolvedConfig:
    chosen = STARTING_RATES | (ROTATIONAL_STARTING_RATES if job.family.kind == "rotational" else {})
    turned = LEARNING_RATES[:1] if job.family.kind == "embeddings" else LEARNING_RATES[1:]
    given: dict[str, Any] = {name: chosen[name] * (job.factor if name in turned else 1.0) for name in LEARNING_RATES}
    if job.family.target is not None:
        given["target"] = job.family.target
    first = job.subjects[0]
    config = TrainConfig(
        name=first.name,
        class_word=first.class_word,
        base=base.name or "a loaded pipeline",
        mode="rotational" if job.family.kind == "rotational" else "additive",
        steps=settings.steps,
        batch_size=settings.batch_size,
        distillation_prompts=settings.distillation_prompts,
        seed=job.seed,
        **given,
    )
    return config.resolved(base.presets(config.mode, config.preset), "fp32")


def _collect(base: Base, recipe: Recipe, configs: Sequence[ResolvedConfig]) -> list[Adapter]:
    loras = [collect_lora(base, config, recipe.facts) for config in configs]
    if recipe.job.family.kind == "embeddings":
        return [replace(lora, layers={}) for lora in loras]
    if not recipe.job.family.is_spectral:
        return [*loras]
    first = configs[0]
    concept = collect(
        base,
        adapter_name(first.name),
        name=first.name,
        trigger=first.trigger,
        class_word=first.class_word,
        base_name=first.base,
        training=recipe.facts,
    )
    return [concept, *loras[1:]]  # of the others their words alone: there is one adapter


def _named(config: ResolvedConfig, subject: Subject) -> ResolvedConfig:
    return replace(config, name=subject.name, trigger=subject.trigger, class_word=subject.class_word)
