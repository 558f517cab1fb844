"""`spectral-fusion generate`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spectral_fusion.cli.base import Device, LowMemory, Precision, PredictionType, base_for, open_base
from spectral_fusion.cli.command import ConfigFile
from spectral_fusion.cli.places import read_regions, read_spans, warnings_told
from spectral_fusion.cli.select import LibraryFolder, Loras, LoraWeights, select_concepts, select_loras, with_tagged
from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.base.interface import Base
    from spectral_fusion.concept import Concept
    from spectral_fusion.generation import GenerateConfig, Picture

Option = typer.Option


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw, with the triggers of concepts: a <rex> dog on grass.")],
    concepts: Annotated[list[str] | None, Option(help="Concepts of the library, or concept files.")] = None,
    weights: Annotated[list[float] | None, Option(help="One weight per concept; 1 where none are given.")] = None,
    loras: Loras = None,
    lora_weights: LoraWeights = None,
    base: Annotated[
        str | None,
        Option(help="toybox, toybox128, a diffusers folder, a .safetensors file or a hub id. Default: the concepts'."),
    ] = None,
    library: LibraryFolder = None,
    negative: Annotated[str, Option("--negative", "--negative-prompt", help="What not to draw.")] = "",
    steps: Annotated[int, Option(help="Denoising steps.")] = 25,
    guidance_scale: Annotated[float, Option("--guidance-scale", "--cfg-scale", help="How strictly to follow.")] = 5.0,
    sampler: Annotated[str, Option(help="DPM++ 2M, Euler a, DDIM, UniPC, ...; a wrong one lists them.")] = "DPM++ 2M",
    seed: Annotated[int | None, Option(help="Of the first picture; the next count up. Default: drawn.")] = None,
    num_images: Annotated[int, Option("--num-images", "--batch-size", "-n", help="How many pictures.")] = 1,
    width: Annotated[int | None, Option(help="Pixels; default: the base's own size.")] = None,
    height: Annotated[int | None, Option(help="Pixels; default: the base's own size.")] = None,
    region: Annotated[
        list[str] | None,
        Option(
            metavar="PROMPT PLACE",
            help='A prompt and its place: a box, --region "a <rex> dog" 0.05,0.2,0.5,0.95; a mask, a picture file, '
            "white inside; or auto, found by the model. Repeatable.",
        ),
    ] = None,
    region_concepts: Annotated[
        list[str] | None,
        Option(
            help="For each region, in order, the concepts that act in it alone: rex:0.8,tom or none. Default: those "
            "whose triggers its prompt names."
        ),
    ] = None,
    bind: Annotated[
        bool, Option(help="Whether concepts act in their regions alone; else they are fused and act everywhere.")
    ] = True,
    concept_steps: Annotated[
        list[str] | None, Option(help="The part of the steps in which a concept acts: rex:0-0.6 tom:0.2-1.")
    ] = None,
    init_image: Annotated[Path | None, Option(help="A picture to begin from, cut to the new one's shape.")] = None,
    strength: Annotated[float, Option(help="How much of it is drawn anew: 0 leaves it, 1 takes nothing of it.")] = 0.6,
    mask: Annotated[Path | None, Option(help="Of the init image, draw anew what is white in this one.")] = None,
    upscale: Annotated[float, Option(help="A second pass makes the picture so much larger; 1: there is none.")] = 1.0,
    upscale_strength: Annotated[float, Option(help="How much that pass draws anew.")] = 0.4,
    detail: Annotated[float, Option(help="Draw each region's subject again by itself, at this strength.")] = 0.0,
    grid: Annotated[list[float] | None, Option(help="Also a sheet: these factors of the weights x the seeds.")] = None,
    out: Annotated[Path, Option(help="Folder for the pictures; nothing in it is overwritten.")] = Path("out"),
    device: Device = None,
    precision: Precision = None,
    prediction_type: PredictionType = None,
    low_memory: LowMemory = False,
    reduce: Annotated[Literal["sum", "mean", "routed"], Option(help="How concepts are fused.")] = "sum",
    on_overlap: Annotated[Literal["error", "warn", "allow"], Option(help="Where two bands overlap.")] = "error",
    config: ConfigFile = None,
) -> None:
    """Generate pictures that hold any number of concepts."""
    from spectral_fusion.base.painted import read_mask
    from spectral_fusion.base.prompt import take_lora_tags
    from spectral_fusion.base.turns import unknown_words
    from spectral_fusion.generation import GenerateConfig
    from spectral_fusion.picture.files import check_folder
    from spectral_fusion.reading.pictures import load_picture

    for note in unknown_words(prompt):
        typer.echo(f"note: {note}", err=True)
    prompt, tagged = take_lora_tags(prompt)
    chosen = with_tagged(select_concepts(concepts, weights, library), tagged, library)
    settings = GenerateConfig(
        prompt,
        negative,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        seed=_draw_seed() if seed is None else seed,
        num_images=num_images,
        height=height,
        width=width,
        regions=read_regions(region or [], region_concepts, chosen, bind=bind),
        spans=read_spans(concept_steps or []),
        init_image=None if init_image is None else load_picture(init_image),
        strength=strength,
        repaint=None if mask is None else read_mask(mask),
        upscale=upscale,
        upscale_strength=upscale_strength,
        detail=detail,
    )
    check_folder(out)
    if grid and not chosen:
        raise InputError("--grid varies the weights of concepts; name some with --concepts")
    opened = open_base(base_for(base, chosen), device, precision, prediction_type, chosen, low_memory)
    beside = select_loras(loras, lora_weights, opened)
    fusing = {"reduce": reduce, "on_overlap": on_overlap}
    rows = _generate_rows(opened, settings, chosen | beside, grid or [1.0], {} if beside else fusing, out)
    if grid:
        _save_sheet(rows, grid, out)


def _generate_rows(
    base: "Base",
    settings: "GenerateConfig",
    concepts: dict[Any, float],
    factors: list[float],
    fusing: dict[str, Any],
    out: Path,
) -> list[list["Picture"]]:
    """One row of pictures per factor that all weights are multiplied by.

    fusing: how concepts are fused where none is bound to a place or a part of the steps; empty: they never are.
    """
    rows = []
    live = not fusing or bool(settings.spans) or any(region.concepts for region in settings.regions)
    with _progress_bar(settings, len(factors)) as on_step, warnings_told():
        for factor in factors:
            scaled = {concept: weight * factor for concept, weight in concepts.items()}
            if live:
                regions = tuple(region.times(factor) for region in settings.regions)
                rows.append(_generate_and_save(base, replace(settings, regions=regions), out, on_step, scaled))
                continue
            with _fused(base, scaled, fusing) as notes:
                rows.append(_generate_and_save(base, replace(settings, notes=notes), out, on_step))
    return rows


def _draw_seed() -> int:
    from secrets import randbelow

    return randbelow(2**32)


@contextmanager
def _fused(base: "Base", concepts: dict["Concept", float], options: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Concepts in the base's weights while the context lasts; yields what pictures shall say of them."""
    from spectral_fusion.fusion import fuse

    if not concepts:
        yield {}
        return
    fusion = fuse(base, concepts, **options)
    try:
        yield fusion.notes
    finally:
        fusion.undo()


@contextmanager
def _progress_bar(settings: "GenerateConfig", rounds: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    from spectral_fusion.cli.progress import StepBar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    bar, done, pictures = StepBar(Console(stderr=True), "generating", *columns), 0.0, rounds * settings.num_images

    def advance(step: Any) -> None:
        nonlocal done
        done += 1 / step.steps
        bar.update(done, pictures, f"picture {min(pictures, int(done - 1e-6) + 1)} of {pictures}")

    bar.start()
    try:
        yield advance
    finally:
        bar.stop()


def _generate_and_save(
    base: "Base",
    settings: "GenerateConfig",
    out: Path,
    on_step: Any,
    concepts: dict[Any, float] | None = None,
) -> list["Picture"]:
    """One picture after the other, each saved at once: stopping loses none."""
    from spectral_fusion.generation import generate as generate_pictures
    from spectral_fusion.picture import save_numbered

    pictures = []
    for number in range(settings.num_images):
        one = replace(settings, seed=settings.seed + number, num_images=1)
        pictures += generate_pictures(base, one, concepts=concepts, on_step=on_step)
        typer.echo(save_numbered(pictures[-1].image, out, f"{one.seed}.png", pictures[-1].parameters))
    return pictures


def _save_sheet(rows: list[list["Picture"]], factors: list[float], out: Path) -> None:
    from spectral_fusion.picture import contact_sheet, save_numbered

    seeds = [f"seed {picture.seed}" for picture in rows[0]]
    sheet = contact_sheet([[p.image for p in row] for row in rows], [f"x {factor:g}" for factor in factors], seeds)
    typer.echo(save_numbered(sheet, out, "grid.png", rows[0][0].parameters))
