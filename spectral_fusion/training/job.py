"""The job: a folder of pictures in, a concept in the library out."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from spectral_fusion.atomic import atomic_file
from spectral_fusion.base.attach import attach, detach, smallest_directions
from spectral_fusion.base.interface import DTYPES, Base, Quantised
from spectral_fusion.base.load import locate, open_base, own_dtype
from spectral_fusion.base.quantise import check_scheme, quantise
from spectral_fusion.concept import Concept, Library, check_name
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError, shown
from spectral_fusion.names import check_trigger
from spectral_fusion.spectral import Band, Triplets, decompose
from spectral_fusion.training.captions import cut_captions
from spectral_fusion.training.checkpoint import Checkpoint, read_header
from spectral_fusion.training.class_pictures import ClassPictures
from spectral_fusion.training.config import ResolvedConfig, TrainConfig
from spectral_fusion.training.device import best_precision, memory_advice
from spectral_fusion.training.distillation import Predictions
from spectral_fusion.training.embeddings import first_embeddings
from spectral_fusion.training.folder import TrainingFolder, choose_context, context_before, digests, training_facts
from spectral_fusion.training.loop import Loop, Progress
from spectral_fusion.training.model import check_untouched, target_layers
from spectral_fusion.training.processes import is_main, on_main, processes
from spectral_fusion.training.single import TrainingContext, train
from spectral_fusion.training.watch import preview

logger = logging.getLogger(__name__)

PREVIEW = "preview.png"
OnProgress = Callable[[Progress], None]


def train_concept(
    images: str | Path | ImageFolder,
    config: TrainConfig,
    *,
    library: Library,
    base: Base | None = None,
    resume: bool = False,
    force: bool = False,
    predictions: Predictions | None = None,
    on_progress: OnProgress | None = None,
) -> Concept:
    """Train a concept and put it into the library, with a preview beside it.

    The same settings and pictures give the same file, also after any number of interruptions.

    Args:
        images: pictures of one subject.
        base: a loaded base instead of `config.base`; it is as before afterwards.
        resume: continue a stopped training of this name from its checkpoint, or start where it left none.
        force: replace a concept or a stopped training of this name; the old file goes to the library's trash.
        predictions: what the base predicted for earlier trainings, to be shared.
        on_progress: called after each step. What it raises stops the training with a checkpoint to resume from.

    Raises:
        InputError: something that was given cannot be used, or there is not enough memory.
    """
    check_name(config.name)
    if config.quantize is not None:
        check_scheme(config.quantize)
        if base is not None:
            raise InputError("a loaded base is not quantised by its training; give base by name, or leave out quantize")
    if config.trigger is not None:
        check_trigger(config.trigger)
    for name in ("class_images", "validation_images"):
        if (given := getattr(config, name)) is not None and not Path(given).is_dir():
            raise InputError(f"{name} {shown(given)} is no folder; give one, or leave it out")
    folder = images if isinstance(images, ImageFolder) else ImageFolder.scan(images, background=config.background)
    folder.check_variety()
    with memory_advice():
        own = base is None
        if base is None:  # in float32, which holds any checkpoint exactly: bands are those of its own precision
            where = {"device": processes().device}
            if config.low_memory or config.offload_blocks:
                where = {"device": "cpu", "dtype": own_dtype(config.base)}
            locate(config.base)  # what does not exist is said on a clean line
            logger.info("loading %s", config.base)
            base = open_base(config.base, prediction_type=config.prediction_type, **where)
        else:
            config = replace(config, base=base.name or "a loaded pipeline")
        settings = resolve(config, base, processes().device if own else None)
        shapes = folder.shape_warnings(aspect_buckets=settings.aspect_buckets)
        cut = cut_captions(base, folder.photos, settings)
        for warning in (*cut, *folder.size_warnings(settings.resolution), *shapes):
            logger.warning("%s", warning)
        others = _context(library, config, base.fingerprint, resume)
        class_pictures = ClassPictures.of(base, settings, library.folder(config.name) / "training" / "class")
        facts = training_facts(settings, folder, digests({c.name: library.path(c.name) for c in others}))
        if class_pictures is not None:
            facts["class_pictures"] = class_pictures.facts()
        home = TrainingFolder(library, config.name, facts, force)
        with home.locked() if is_main() else nullcontext():
            start = None
            if resume and not home.checkpoint.exists():
                if home.is_finished():
                    return library.get(config.name)
                if not force and (start := home.to_extend()):
                    home = replace(home, force=True)
            job = _Job(
                home, base, folder, settings, others, class_pictures, predictions, own, start, _validation(settings)
            )
            return job.run(resume, on_progress)


def resolve(config: TrainConfig, base: Base, device: torch.device | None = None) -> ResolvedConfig:
    """The settings with what was left open filled in for this base, and the device that it will be on."""
    return config.resolved(base.presets(config.mode, config.preset), best_precision(device or base.device))


def _context(library: Library, config: TrainConfig, base: str, resume: bool) -> list[Concept]:
    """The same as before where a training is resumed, whatever the library holds by now."""
    before = context_before(library, config) if resume else None
    return choose_context(library, config if before is None else replace(config, with_concepts=before), base)


def _validation(config: ResolvedConfig) -> ImageFolder | None:
    """The pictures to measure on, where there are others than those that are learned."""
    folder = config.validation_images
    return None if folder is None else ImageFolder.scan(folder, background=config.background)


@dataclass(frozen=True)
class _Job:
    """One training and its folder: claims a band, writes checkpoints, puts the result into the library."""

    home: TrainingFolder
    base: Base
    images: ImageFolder
    config: ResolvedConfig
    others: Sequence[Concept]
    class_pictures: ClassPictures | None
    predictions: Predictions | None
    cast: bool
    """Whether to cast the base to the training's precision, once its bands are known."""
    start: Concept | None = None
    """The finished concept that gets more steps."""
    validation: ImageFolder | None = None
    """The pictures to measure on."""

    def run(self, resume: bool, on_progress: OnProgress | None) -> Concept:
        self._check()
        resuming, band = on_main(lambda: self._begin(resume))
        checkpoint = Checkpoint.load(self.home.checkpoint) if resuming else None
        home = self.home if checkpoint is None else replace(self.home, force=checkpoint.facts["force"])
        try:
            bases = self._decompose(band)
            concept = train(
                self.base,
                self.images,
                self.config,
                band,
                self._training_context(),
                bases=bases,
                facts=home.facts,
                checkpoint=checkpoint,
                on_step=_Keeper(home, band, on_progress),
            )
            if is_main():
                _save_picture(self._preview(concept), home.library.folder(self.config.name) / PREVIEW)
        except BaseException:
            if is_main() and not home.checkpoint.exists():
                home.library.release(self.config.name)
            raise
        if is_main():
            self._file(concept, home)
        return concept

    def _training_context(self) -> TrainingContext:
        known = self._read_class_pictures(), self.predictions
        context = TrainingContext(self.others, *known, validation=self.validation)
        if self.start is None:
            return context
        first = int(self.start.training["steps"])
        logger.warning(
            "%s goes on from step %d to %d: the learning rates are those of %d steps (%s), the optimizer begins anew",
            *(self.config.name, first, self.config.steps, self.config.steps, self.config.schedule),
        )
        return replace(context, start=self.start, first_step=first)

    def _check(self) -> None:
        """What can be refused is refused before minutes of work."""
        check_untouched(self.base)
        target_layers(self.base, self.config)
        self.base.check_words(self.config.trigger, first_embeddings(self.base, self.config))

    def _decompose(self, band: Band) -> dict[str, Triplets]:
        """The band of each layer, of the weights before they are cast."""
        bases = decompose({name: layer.weight for name, layer in target_layers(self.base, self.config).items()}, band)
        if self.cast:
            self.base.cast(DTYPES[self.config.precision])
            if self.config.quantize is not None:
                _tell_errors(quantise(self.base, self.config.quantize))
            if self.config.low_memory:
                learning = [part for part in self.base.parts if self.config.learns(part)]
                self.base.place(processes().device, learning, layers=self.config.offload_blocks)
        return bases

    def _begin(self, resume: bool) -> tuple[bool, Band]:
        """Whether there is a checkpoint to go on from; the band, reserved in the library until the concept is in it."""
        config, home = self.config, self.home
        resuming = home.check(resume=resume)
        band = read_header(home.checkpoint)["facts"]["band"] if resuming else config.band
        band = band if self.start is None else self.start.band.index
        directions = smallest_directions(layer.weight for layer in target_layers(self.base, config).values())
        return resuming, home.library.claim(
            config.name,
            config.trigger,
            self.base.fingerprint,
            config.rank,
            band=None if band == "auto" else band,
            side=config.band_side,
            directions=directions,
        )

    def _read_class_pictures(self) -> ImageFolder | None:
        if self.class_pictures is None:
            return None
        with processes().main_process_first():
            return self.class_pictures.read()

    def _preview(self, concept: Concept) -> Image.Image:
        logger.info("drawing a preview")
        attach(self.base, concept)
        try:
            return preview(self.base, self.config)
        finally:
            detach(self.base, concept)

    def _file(self, concept: Concept, home: TrainingFolder) -> None:
        if home.is_finished():  # killed last time between this and the next line
            home.library.release(concept.name)
        else:
            home.library.add(concept, force=home.force)
        home.checkpoint.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Keeper:
    """Keeps what a training leaves behind: checkpoints, between steps only, and grids of samples."""

    home: TrainingFolder
    band: Band
    on_progress: OnProgress | None

    def __call__(self, loop: Loop, progress: Progress) -> None:
        main = is_main()
        if main and progress.samples is not None:
            _save_picture(progress.samples, self.home.folder / "samples" / f"step-{loop.step:06d}.png")
        if main and (loop.step % loop.config.checkpoint_every == 0 or loop.is_over):
            self._save(loop)
        if self.on_progress is not None:
            try:
                self.on_progress(progress)
            except BaseException:
                if main:
                    self._save(loop)
                raise

    def _save(self, loop: Loop) -> None:
        tensors, rest = loop.state()
        facts: dict[str, Any] = {
            "run": self.home.facts,
            "config": asdict(loop.config),
            "band": self.band.index,
            "force": self.home.force,
            "loop": rest,
        }
        Checkpoint(loop.step, tensors, facts).save(self.home.checkpoint)


def _tell_errors(quantised: Quantised) -> None:
    worst = max(quantised.errors, key=quantised.errors.__getitem__)
    logger.info(
        "%d layers are in %s; a weight moved by %.2f %% of its norm in the mean, the most by %.2f %% (%s)",
        len(quantised.errors),
        quantised.scheme,
        100 * sum(quantised.errors.values()) / len(quantised.errors),
        100 * quantised.errors[worst],
        worst,
    )


def _save_picture(picture: Image.Image, path: Path) -> None:
    with atomic_file(path) as part:
        picture.save(part, format="png")
