"""The job: a folder of pictures in, a concept in the library out."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from spectral_fusion.concept import Concept, Library, base_fingerprint, check_name
from spectral_fusion.concept.atomic import atomic_file
from spectral_fusion.concept.attach import adapter_name, smallest_directions
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.pipeline.load import load_base, quietly
from spectral_fusion.pipeline.tokens import check_trigger
from spectral_fusion.spectral import Band, decompose
from spectral_fusion.train.captions import with_trigger
from spectral_fusion.train.checkpoint import Checkpoint, read_header
from spectral_fusion.train.config import Precision, TrainConfig
from spectral_fusion.train.data import LatentPictures
from spectral_fusion.train.loop import Loop, Progress
from spectral_fusion.train.neighbours import choose_neighbours, digests, lessons, settings_beside
from spectral_fusion.train.prior import class_folder
from spectral_fusion.train.processes import deterministic, is_main, on_main, processes
from spectral_fusion.train.run import Run, neighbours_before, run_facts
from spectral_fusion.train.trainee import DTYPES, target_layers, trainee
from spectral_fusion.train.watch import preview, sample_grid, validation_loss

logger = logging.getLogger(__name__)

PREVIEW = "preview.png"
OnProgress = Callable[[Progress], None]


def train_concept(
    images: str | Path | ImageFolder,
    config: TrainConfig,
    *,
    library: Library,
    pipeline: StableDiffusionPipeline | None = None,
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Concept:
    """Train a concept and put it into the library, with a preview beside it.

    The same settings and pictures give the same file, also after any number of interruptions.

    Args:
        images: pictures of one subject.
        pipeline: a loaded base instead of `config.base`; it is as before afterwards.
        resume: continue a stopped training of this name from its checkpoint, or start where it left none.
        force: replace a concept or a stopped training of this name; the old file goes to the library's trash.
        on_progress: called after each step. What it raises stops the training with a checkpoint to resume from.

    Raises:
        InputError: something that was given cannot be used, or there is not enough memory.
    """
    check_name(config.name)
    if config.trigger is not None:
        check_trigger(config.trigger)
    folder = images if isinstance(images, ImageFolder) else ImageFolder.scan(images, background=config.background)
    with _memory_advice():
        own = pipeline is None
        if pipeline is None:  # in float32, which holds any checkpoint exactly: bands are those of its own precision
            pipeline = load_base(config.base, device=processes().device)
        else:
            config = replace(config, base=pipeline.config.get("_name_or_path") or "a loaded pipeline")
        config = config.resolved(
            resolution=pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
            prediction_type=pipeline.scheduler.config.prediction_type,
            precision=_best_precision(pipeline.device),
        )
        for warning in folder.size_warnings(config.resolution):
            logger.warning("%s", warning)
        neighbours = _neighbours(library, config, base_fingerprint(pipeline), resume)
        run = Run(
            library,
            config.name,
            run_facts(config, folder, digests({c.name: library.path(c.name) for c in neighbours})),
            force,
        )
        with run.locked() if is_main() else nullcontext():
            if resume and not run.checkpoint.exists() and run.is_finished():
                return library.get(config.name)
            return _run(run, pipeline, folder, config, neighbours, resume, on_progress, cast=own)


def _neighbours(library: Library, config: TrainConfig, base: str, resume: bool) -> list[Concept]:
    """The same as before where a training is resumed, whatever the library holds by now."""
    before = neighbours_before(library, config) if resume else None
    return choose_neighbours(library, config if before is None else replace(config, beside=before), base)


def _run(
    run: Run,
    pipeline: StableDiffusionPipeline,
    folder: ImageFolder,
    config: TrainConfig,
    neighbours: Sequence[Concept],
    resume: bool,
    on_progress: OnProgress | None,
    *,
    cast: bool,
) -> Concept:
    main, config = is_main(), settings_beside(config, neighbours)
    resuming, band = on_main(lambda: _begin(run, pipeline, config, resume))
    checkpoint = Checkpoint.load(run.checkpoint) if resuming else None
    if checkpoint is not None:
        run = replace(run, force=checkpoint.facts["force"])
    try:
        weights = {name: layer.weight for name, layer in target_layers(pipeline, config).items()}
        bases = decompose(weights, band)
        if cast:
            with quietly():
                pipeline.to(DTYPES[config.precision])
        pictures = _pictures(run, pipeline, folder, config)
        with (
            deterministic(pipeline.device),
            lessons(pipeline, config, neighbours) as taught,
            trainee(pipeline, config, band, bases=bases) as learner,
        ):
            loop = Loop(learner, pictures, config, taught)
            if checkpoint is not None:
                loop.load_state(checkpoint.step, checkpoint.tensors, checkpoint.facts["loop"])
            _train(loop, pictures[0], run, band, on_progress)
            concept = _collect(pipeline, config, run)
            if main:
                _save_picture(preview(learner, config), run.library.folder(config.name) / PREVIEW)
    except BaseException:
        if main and not run.checkpoint.exists():
            run.library.release(config.name)
        raise
    if main:
        if run.is_finished():  # killed last time between this and the next line
            run.library.release(config.name)
        else:
            run.library.add(concept, force=run.force)
        run.checkpoint.unlink(missing_ok=True)
    return concept


def _begin(run: Run, pipeline: StableDiffusionPipeline, config: TrainConfig, resume: bool) -> tuple[bool, Band]:
    """Whether there is a checkpoint to go on from; the band, reserved in the library until the concept is in it."""
    resuming = run.check(resume=resume)
    facts = read_header(run.checkpoint)["facts"] if resuming else {}
    band = facts.get("band", config.band)
    directions = smallest_directions(layer.weight for layer in target_layers(pipeline, config).values())
    return resuming, run.library.claim(
        config.name,
        config.trigger,
        base_fingerprint(pipeline),
        config.rank,
        band=None if band == "auto" else band,
        side=config.band_side,
        directions=directions,
    )


def _train(loop: Loop, pictures: LatentPictures, run: Run, band: Band, on_progress: OnProgress | None) -> None:
    """Step until done. Checkpoints are written between steps only, when all that they hold is of one step."""
    config, main = loop.config, is_main()
    while loop.step < config.steps:
        progress = loop.advance()
        if main:
            progress = _watch(loop, pictures, run, progress)
            if loop.step % config.checkpoint_every == 0 or loop.step == config.steps:
                _save_checkpoint(loop, run, band)
        if on_progress is not None:
            try:
                on_progress(progress)
            except BaseException:
                if main:
                    _save_checkpoint(loop, run, band)
                raise


def _watch(loop: Loop, pictures: LatentPictures, run: Run, progress: Progress) -> Progress:
    config = loop.config
    if config.validate_every and loop.step % config.validate_every == 0:
        progress = replace(progress, validation_loss=validation_loss(loop.trainee, pictures))
    if config.sample_every and loop.step % config.sample_every == 0:
        grid = sample_grid(loop.trainee, config)
        _save_picture(grid, run.folder / "samples" / f"step-{loop.step:06d}.png")
        progress = replace(progress, samples=grid)
    return progress


def _save_checkpoint(loop: Loop, run: Run, band: Band) -> None:
    tensors, rest = loop.state()
    facts = {"run": run.facts, "config": asdict(loop.config), "band": band.index, "force": run.force, "loop": rest}
    Checkpoint(loop.step, tensors, facts).save(run.checkpoint)


def _save_picture(picture: Image.Image, path: Path) -> None:
    with atomic_file(path) as part:
        picture.save(part, format="png")


def subject_pictures(pipeline: StableDiffusionPipeline, folder: ImageFolder, config: TrainConfig) -> LatentPictures:
    """The pictures of the subject, its trigger in every caption."""
    own = [p.caption and with_trigger(p.caption, config.trigger, config.class_word) for p in folder.photos]
    return LatentPictures(folder, config, pipeline, subject=f"{config.trigger} {config.class_word}", captions=own)


def _pictures(
    run: Run, pipeline: StableDiffusionPipeline, folder: ImageFolder, config: TrainConfig
) -> list[LatentPictures]:
    """The pictures of the subject, and those of its class where the prior is to be preserved."""
    pictures = [subject_pictures(pipeline, folder, config)]
    if config.prior_preservation:
        with processes().main_process_first():
            others = class_folder(pipeline, config, run.folder / "class")
        captions = [photo.caption for photo in others.photos]
        pictures.append(
            LatentPictures(
                others, config, pipeline, subject=config.class_word, captions=captions, weight=config.prior_weight
            )
        )
    return pictures


def _collect(pipeline: StableDiffusionPipeline, config: TrainConfig, run: Run) -> Concept:
    return Concept.from_pipeline(
        pipeline,
        adapter_name(config.name),
        name=config.name,
        trigger=config.trigger,
        class_word=config.class_word,
        base_name=run.facts["base"],
        training=run.facts,
    )


def _best_precision(device: torch.device) -> Precision:
    """What `accelerate launch --mixed_precision` asks for, else the format that the device is fastest in."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION")
    if asked == "fp16":
        return "fp16"
    if asked == "bf16":
        return "bf16"
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


@contextmanager
def _memory_advice() -> Iterator[None]:
    """Say what to lower where memory runs out. PyTorch has no error class for a failed allocation on the CPU."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        gone = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
        if not gone:
            raise
        raise InputError(
            "not enough memory; raise --gradient-accumulation, add --gradient-checkpointing, or lower --batch-size, "
            "--resolution or --rank"
        ) from error
