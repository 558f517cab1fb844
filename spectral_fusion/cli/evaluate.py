"""`spectral-fusion evaluate`."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_fusion.base.default import DEFAULT
from spectral_fusion.cli.base import BaseName, Device, Precision, PredictionType, open_base
from spectral_fusion.cli.command import ConfigFile
from spectral_fusion.cli.progress import status
from spectral_fusion.cli.select import LibraryFolder, select_concepts
from spectral_fusion.errors import InputError
from spectral_fusion.journal import Journal

if TYPE_CHECKING:
    from spectral_fusion.concept import Concept
    from spectral_fusion.concept.images import ImageFolder

Option = typer.Option


def evaluate(
    names: Annotated[list[str], typer.Argument(help="Two or more concepts of the library, or concept files.")],
    images: Annotated[
        list[Path] | None, Option(help="A folder of photos per concept, in order. Default: LIBRARY/NAME/images.")
    ] = None,
    methods: Annotated[
        list[str] | None, Option(help="spectral-sum, spectral-mean, and lora-sum, lora-mean, which are trained first.")
    ] = None,
    prompts: Annotated[list[str] | None, Option(help="What to draw; {} stands for the subject.")] = None,
    seed: Annotated[int, Option(help="The first sampling seed.")] = 0,
    seeds: Annotated[int, Option(help="Pictures of each prompt.")] = 3,
    steps: Annotated[int, Option(help="Denoising steps.")] = 20,
    guidance_scale: Annotated[float, Option("--guidance-scale", "--cfg-scale", help="How strictly to follow.")] = 5.0,
    sampler: Annotated[str, Option(help="DPM++ 2M, Euler a, DDIM, UniPC, ...; a wrong one lists them.")] = "DPM++ 2M",
    base: BaseName = DEFAULT,
    device: Device = None,
    precision: Precision = None,
    prediction_type: PredictionType = None,
    library: LibraryFolder = None,
    clip: Annotated[str | None, Option(help="Judges text: a CLIP folder or hub id. Default: by the base.")] = None,
    dino: Annotated[str | None, Option(help="Judges identity: a DINO folder or hub id. Default: by the base.")] = None,
    detector: Annotated[
        str | None, Option(help="Finds subjects: an OWLv2 folder or hub id. Default: the base's own, or places.")
    ] = None,
    out: Annotated[Path, Option(help="Folder for the report and the contact sheet.")] = Path("out/evaluate"),
    journal: Annotated[Path | None, Option(help="Write a JSON line a stage here, for other programs.")] = None,
    config: ConfigFile = None,
) -> None:
    """Score concepts alone, fused, and with one another; write a report with pictures."""
    from spectral_fusion.base.samplers import check_sampler
    from spectral_fusion.evaluate import EvaluateConfig, build_methods, load_detector, load_scorers, train_loras
    from spectral_fusion.evaluate import evaluate as run
    from spectral_fusion.evaluate.job import check_count
    from spectral_fusion.evaluate.methods import check_methods
    from spectral_fusion.report import write_report, write_sheet

    settings = EvaluateConfig(
        **({"prompts": tuple(prompts)} if prompts else {}),
        seed=seed,
        seeds=seeds,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
    )
    wanted = methods or ["spectral-sum", "spectral-mean"]
    check_sampler(sampler)
    check_methods(wanted)
    concepts = list(select_concepts(names, library=library))
    check_count(len(concepts))
    folders = photo_folders(concepts, images, library)
    with Journal(journal) if journal else nullcontext() as book, status("loading") as show:

        def tell(stage: str) -> None:
            show(stage)
            if book is not None:
                book.write(stage=stage)

        opened = open_base(base, device, precision, prediction_type, concepts)
        scorers = load_scorers(opened, clip=clip, dino=dino)
        finder = load_detector(opened, detector)
        chosen = build_methods(
            wanted,
            concepts,
            lambda: train_loras(concepts, folders, out / "lora", base=opened, on_progress=tell),
        )
        found = run(opened, chosen, folders, scorers, settings, detector=finder, on_progress=tell)
        page, data = write_report(found, out, title=" + ".join(concept.name for concept in concepts))
        sheet = write_sheet(found, out / "contact-sheet.png")
    for path in (page, data, sheet):
        typer.echo(path)


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
