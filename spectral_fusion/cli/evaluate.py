"""`spectral-fusion evaluate`."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spectral_fusion.cli import judging as asked
from spectral_fusion.cli.base import Device, Precision, PredictionType, base_for, open_base
from spectral_fusion.cli.command import ConfigFile, check_together
from spectral_fusion.cli.drawing import BaseOfConcepts, Guidance, Sampler, Steps
from spectral_fusion.cli.progress import status
from spectral_fusion.cli.select import LibraryFolder, select_concepts
from spectral_fusion.errors import InputError
from spectral_fusion.journal import Journal
from spectral_fusion.names import key

if TYPE_CHECKING:
    from spectral_fusion.base.interface import Base
    from spectral_fusion.concept import Concept
    from spectral_fusion.concept.images import ImageFolder
    from spectral_fusion.evaluate import EvaluateConfig
    from spectral_fusion.evaluate.subjects import SubjectList


def evaluate(
    names: asked.Names = None,
    images: asked.Images = None,
    subjects: asked.SubjectsOf = None,
    photos: asked.PhotosOf = None,
    methods: asked.Methods = None,
    prompts: asked.Prompts = None,
    seed: asked.Seed = 0,
    seeds: asked.Seeds = None,
    steps: Steps = 20,
    guidance_scale: Guidance = 5.0,
    sampler: Sampler = "DPM++ 2M",
    base: BaseOfConcepts = None,
    device: Device = None,
    precision: Precision = None,
    prediction_type: PredictionType = None,
    library: LibraryFolder = None,
    clip: asked.Clip = None,
    dino: asked.Dino = None,
    faces: asked.Faces = None,
    detector: asked.Detector = None,
    out: asked.Out = Path("out/evaluate"),
    journal: asked.JournalFile = None,
    config: ConfigFile = None,
) -> None:
    """Score concepts alone, fused, and with one another; write a report with pictures."""
    from spectral_fusion.picture.files import check_folder

    wanted = methods or ["spectral-sum", "spectral-mean"]
    check_choices(wanted, sampler)
    check_folder(out, "report")
    listed = subject_list(subjects, photos, images, prompts)
    concepts = chosen_concepts(names, listed, library)
    if listed is not None and photos is not None:
        images = listed.folders(_names(concepts), photos)
    folders = photo_folders(concepts, images, library)
    given = {"seed": seed, "num_inference_steps": steps, "guidance_scale": guidance_scale, "sampler": sampler}
    settings = evaluate_config(given, listed, concepts, prompts, seeds)
    opening = partial(open_base, base_for(base, concepts), device, precision, prediction_type, concepts)
    judging = {"clip": clip, "dino": dino, "faces": faces}
    with Journal(journal) if journal else nullcontext() as book, status("loading") as show:

        def tell(stage: str) -> None:
            show(stage)
            if book is not None:
                book.write(stage=stage)

        paths = _evaluate(opening, concepts, folders, settings, wanted, judging, detector, out, tell)
    for path in paths:
        typer.echo(path)


def _evaluate(
    opening: Callable[[], "Base"],
    concepts: list["Concept"],
    folders: list["ImageFolder"],
    settings: "EvaluateConfig",
    methods: list[str],
    judging: dict[str, str | None],
    detector: str | None,
    out: Path,
    tell: Callable[[str], None],
) -> tuple[Path, Path, Path]:
    """The report, its data and the contact sheet."""
    from spectral_fusion.evaluate import build_methods, load_detector, load_scorers, train_loras
    from spectral_fusion.evaluate import evaluate as run
    from spectral_fusion.report import write_report, write_sheet

    base = opening()
    scorers, finder = load_scorers(base, **judging), load_detector(base, detector)
    loras = partial(train_loras, concepts, folders, out / "lora", base=base, on_progress=tell)
    chosen = build_methods(methods, concepts, loras)
    found = run(base, chosen, folders, scorers, settings, detector=finder, on_progress=tell)
    page, data = write_report(found, out, title=" + ".join(_names(concepts)))
    return page, data, write_sheet(found, out / "contact-sheet.png")


def check_choices(methods: list[str], sampler: str) -> None:
    """Raises InputError where one is unknown, before anything is loaded."""
    from spectral_fusion.base.samplers import check_sampler
    from spectral_fusion.evaluate.methods import check_methods

    check_sampler(sampler)
    check_methods(methods)


def subject_list(
    name: str | None, photos: Path | None, images: list[Path] | None, prompts: list[str] | None
) -> "SubjectList | None":
    """The benchmark of that name.

    Raises:
        InputError: it comes without the folder of photos, that without it, or with photos or prompts of one's own.
    """
    from spectral_fusion.evaluate.subjects import SUBJECT_LISTS

    check_together({"--subjects": name, "--photos": photos})
    if name is None:
        return None
    if images or prompts:
        raise InputError(f"--subjects {name} has its own photos and prompts; leave out --images and --prompts")
    return SUBJECT_LISTS[name]


def chosen_concepts(names: list[str] | None, listed: "SubjectList | None", library: Path | None) -> list["Concept"]:
    """The concepts of these names; without names, those of the library that the benchmark lists.

    Raises:
        InputError: there are fewer than two, or one that cannot be loaded.
    """
    from spectral_fusion.concept import Library
    from spectral_fusion.evaluate.job import check_count

    if not names and listed is not None:
        known = {key(subject) for subject in listed.classes}
        names = [info.name for info in Library(library).list() if key(info.name) in known]
    concepts = list(select_concepts(names, library=library))
    check_count(len(concepts))
    return concepts


def evaluate_config(
    given: dict[str, Any],
    listed: "SubjectList | None",
    concepts: list["Concept"],
    prompts: list[str] | None,
    seeds: int | None,
) -> "EvaluateConfig":
    """The settings: those of the benchmark, where there is one, then those of the flags."""
    from spectral_fusion.evaluate import EvaluateConfig

    values = given | (listed.settings(_names(concepts)) if listed is not None else {})
    values |= {"prompts": tuple(prompts)} if prompts else {}
    return EvaluateConfig(**values | ({} if seeds is None else {"seeds": seeds}))


def _names(concepts: Sequence["Concept"]) -> list[str]:
    return [concept.name for concept in concepts]


def photo_folders(
    concepts: Sequence["Concept"], images: Sequence[Path] | None, library: Path | None
) -> list["ImageFolder"]:
    """The photos of each concept.

    Raises:
        InputError: another number of folders than concepts, or a folder without pictures.
    """
    from spectral_fusion.concept import Library
    from spectral_fusion.concept.images import ImageFolder

    shelf = Library(library)
    if images and len(images) != len(concepts):
        raise InputError(f"{len(concepts)} concepts and {len(images)} folders; give --images one folder per concept")
    paths = images or [shelf.folder(concept.name) / "images" for concept in concepts]
    if missing := [path for path in paths if not path.is_dir()]:
        raise InputError(f"there are no photos in {missing[0]}; give --images one folder per concept, in order")
    return [ImageFolder.scan(path) for path in paths]
