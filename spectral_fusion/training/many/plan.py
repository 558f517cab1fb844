"""What is to be trained, band by band and round by round, settled and checked before anything is."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spectral_fusion.base.attach import smallest_directions
from spectral_fusion.base.interface import Base
from spectral_fusion.concept import Library, read_info
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.names import check_name, check_trigger, key
from spectral_fusion.spectral import Band
from spectral_fusion.training.checkpoint import read_header
from spectral_fusion.training.config import ResolvedConfig, TrainConfig
from spectral_fusion.training.embeddings import first_embeddings
from spectral_fusion.training.folder import FOLDER, MOST, TrainingFolder, digests, training_facts
from spectral_fusion.training.job import resolve
from spectral_fusion.training.many.task import Task
from spectral_fusion.training.model import check_untouched, target_layers
from spectral_fusion.training.processes import processes
from spectral_fusion.training.together import rounds

logger = logging.getLogger(__name__)

FIRST = "first.safetensors"  # the concept of round one, in float32


@dataclass(frozen=True)
class Request:
    """A concept that is asked for."""

    images: ImageFolder
    config: TrainConfig


@dataclass(frozen=True)
class Member:
    """A concept that will be trained.

    older: concepts of the library, and beside: others of this run, that it is trained beside.
    facts: what its file keeps, by round; the last one's are the concept's.
    done: whether the library has it already, from an earlier start.
    """

    images: ImageFolder
    config: ResolvedConfig
    band: Band
    older: tuple[str, ...]
    beside: tuple[str, ...]
    facts: tuple[dict[str, Any], ...] = field(repr=False)
    done: bool = False

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def settings(self) -> tuple[ResolvedConfig, ...]:
        """Those of each round."""
        return rounds(self.config) if self.beside else (self.config,)


@dataclass(frozen=True)
class Home:
    """Where the library keeps what a member's training leaves behind."""

    library: Library
    name: str

    @property
    def folder(self) -> Path:
        return self.library.folder(self.name) / FOLDER

    @property
    def first(self) -> Path:
        return self.folder / FIRST

    @property
    def checkpoint(self) -> Path:
        return TrainingFolder(self.library, self.name, {}).checkpoint

    def stopped(self) -> dict[str, Any] | None:
        """What the result of the stopped training depends on; None where there is none."""
        return read_header(self.checkpoint)["facts"]["run"] if self.checkpoint.is_file() else None

    def clear(self) -> None:
        """Forget a training."""
        for file in (self.checkpoint, self.first):
            file.unlink(missing_ok=True)


def check_names(requests: Sequence[Request]) -> None:
    """Raises InputError where there is nothing to train, or two have one name or trigger."""
    if not requests:
        raise InputError("nothing to train; give folders of pictures, or a manifest that lists some")
    for what in ("name", "trigger"):
        seen: dict[str, str] = {}
        for request in requests:
            name = check_name(request.config.name)
            text = check_trigger(request.config.trigger or f"<{name}>") if what == "trigger" else name
            if key(text) in seen:
                raise InputError(f"two concepts have the {what} {text!r}; give one of them another in a manifest")
            seen[key(text)] = name


def make_plan(requests: Sequence[Request], base: Base, library: Library, *, force: bool) -> list[Member]:
    """Settle everything, and claim a band for each in the order given.

    Args:
        base: as the files have it, in any precision.
        force: concepts and stopped trainings of other settings may be replaced.

    Raises:
        InputError: a concept cannot be trained as asked, would replace another, or there is no free band. Then no claim
            is left behind that was not there before.
    """
    configs = [_checked(request, base) for request in requests]
    before = {name for name, _ in library.stock().claims}
    claimed: list[str] = []
    try:
        bands = {}
        for config in configs:
            claimed += [config.name] if config.name not in before else []
            bands[config.name] = _claim(config, base, library)
        members = _members(requests, configs, bands, base, library)
        members = [replace(member, done=is_finished(member, library)) for member in members]
        for member in members:
            _refuse_loss(member, library, force=force)
    except BaseException:
        for name in claimed:
            library.release(name)
        raise
    for member in members:
        if member.done and member.name in claimed:
            library.release(member.name)
    return members


def task_of(member: Member, number: int, members: Mapping[str, Member], library: Library) -> Task:
    """The work of a round; it goes on from the checkpoint where there is one of it."""
    home = Home(library, member.name)
    others = [library.path(name) for name in member.older]
    if number:
        others += [Home(library, name).first for name in member.beside]
    return Task(
        name=member.name,
        round=number,
        config=member.settings[number],
        band=(member.band.index, member.band.rank, member.band.side),
        facts=member.facts[number],
        images=member.images.path,
        others=tuple(others),
        start=home.first if number else None,
        checkpoint=home.checkpoint if home.stopped() == member.facts[number] else None,
        validation=None if member.config.validation_images is None else Path(member.config.validation_images),
        last=number == len(member.facts) - 1,
    )


def is_finished(member: Member, library: Library) -> bool:
    """Whether the library has the concept, as this run would train it."""
    return TrainingFolder(library, member.name, member.facts[-1]).is_finished()


def has_first(member: Member, library: Library) -> bool:
    """Whether the result of round one is there."""
    path = Home(library, member.name).first
    return path.is_file() and read_info(path).training == member.facts[0]


def _checked(request: Request, base: Base) -> ResolvedConfig:
    config = resolve(replace(request.config, base=request.config.base), base, processes().device)
    if config.prior_preservation:
        raise InputError(
            f"{config.name!r} asks for class pictures, which train-many does not have; leave class_images and "
            "num_class_images out: distillation preserves the class"
        )
    if config.validation_images is not None:
        ImageFolder.scan(config.validation_images, background=config.background)
    images = request.images
    images.check_variety()
    shapes = images.shape_warnings(aspect_buckets=config.aspect_buckets)
    for warning in (*images.size_warnings(config.resolution), *shapes):
        logger.warning("%s", warning)
    check_untouched(base)
    target_layers(base, config)
    base.check_words(config.trigger, first_embeddings(base, config))
    return config


def _claim(config: ResolvedConfig, base: Base, library: Library) -> Band:
    wanted = None if config.band == "auto" else int(config.band)
    path = library.path(config.name)
    if wanted is None and path.is_file():  # finished at an earlier start, or to be replaced: it keeps its band
        info = read_info(path)
        if (info.base, info.band.rank, info.band.side) == (base.fingerprint, config.rank, config.band_side):
            wanted = info.band.index
    directions = smallest_directions(layer.weight for layer in target_layers(base, config).values())
    return library.claim(
        config.name,
        config.trigger,
        base.fingerprint,
        config.rank,
        band=wanted,
        side=config.band_side,
        directions=directions,
    )


def _members(
    requests: Sequence[Request],
    configs: Sequence[ResolvedConfig],
    bands: Mapping[str, Band],
    base: Base,
    library: Library,
) -> list[Member]:
    own = {config.name: config for config in configs}
    older = {info.name: info for info in library.stock().concepts if info.base == base.fingerprint}
    names = {name: (own[name].class_word, bands[name].index) for name in own}
    names |= {name: (info.class_word, info.band.index) for name, info in older.items() if name not in own}
    chosen = {config.name: _beside(config, names, _before(config, library)) for config in configs}
    files = {name: library.path(name) for names_of in chosen.values() for name in names_of if name not in own}
    hashes = digests(files)
    first = {}
    for request, config in zip(requests, configs, strict=True):
        context = {name: hashes[name] for name in chosen[config.name] if name not in own}
        first[config.name] = training_facts(config, request.images, context) | {"round": 1}
    made = []
    for request, config in zip(requests, configs, strict=True):
        beside = tuple(name for name in chosen[config.name] if name in own)
        context = {name: hashes[name] for name in chosen[config.name] if name not in own}
        if not beside:
            facts: tuple[dict[str, Any], ...] = (training_facts(config, request.images, context),)
        elif config.steps < 2:
            raise InputError(f"{config.name!r} has 1 step, which two rounds cannot share; give 2 or more")
        else:
            both = context | {name: _digest([first[name], str(bands[name])]) for name in beside}
            facts = (first[config.name], training_facts(config, request.images, both) | {"rounds": 2})
        made.append(Member(request.images, config, bands[config.name], tuple(context), beside, facts))
    return made


def _beside(
    config: ResolvedConfig, names: Mapping[str, tuple[str, int]], before: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Whom a concept is trained beside: as at an earlier start, else as `choose_context`, this run's own included."""
    if config.with_concepts in ((), ("none",)):
        return ()
    others = {name: place for name, place in names.items() if name != config.name}
    if before is not None and all(name in others for name in before):
        return before
    if config.with_concepts == ("all",):
        order = sorted(others, key=lambda name: (others[name][0] != config.class_word, others[name][1], name))
        return tuple(order[:MOST])
    for name in config.with_concepts:
        if name not in others:
            raise InputError(
                f"{config.name!r} is to be trained beside {name!r}, which is neither of this run nor of the library "
                "for this base; leave it out of --with-concepts"
            )
    return tuple(dict.fromkeys(config.with_concepts))


def _before(config: ResolvedConfig, library: Library) -> tuple[str, ...] | None:
    """Whom a finished training of this name, or the second round of a stopped one, was done beside."""
    path = library.path(config.name)
    facts = Home(library, config.name).stopped() or (read_info(path).training if path.is_file() else None)
    if facts is None or facts.get("round") == 1 or facts.get("with_concepts") != list(config.with_concepts):
        return None
    return tuple(facts.get("context", ()))


def _refuse_loss(member: Member, library: Library, *, force: bool) -> None:
    """Raises InputError where something of this name would be lost; with force it is given up."""
    home, stopped = Home(library, member.name), Home(library, member.name).stopped()
    if force or member.done:
        if not member.done and stopped is not None and stopped not in member.facts:
            home.clear()
        return
    if stopped is not None and stopped not in member.facts:
        now = member.facts[0] if stopped.get("round") == 1 else member.facts[-1]
        changes = [
            f"{key} was {stopped.get(key)!r}, is {value!r}" for key, value in now.items() if stopped.get(key) != value
        ]
        raise InputError(
            f"the stopped training of {member.name!r} differs: {'; '.join(changes) or 'it had other rounds'}. "
            "Go on with its own settings and pictures, or start again with --force"
        )
    if library.path(member.name).is_file():
        raise InputError(
            f"the library has a concept {member.name!r} already; give another name, or --force to replace it"
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
