"""`spectral-fusion generate`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import typer

from spectral_fusion.cli import drawing as asked
from spectral_fusion.cli.base import (
    Device,
    LowMemory,
    OffloadBlocks,
    Precision,
    PredictionType,
    Quantize,
    base_for,
    open_base,
)
from spectral_fusion.cli.command import ConfigFile
from spectral_fusion.cli.control import (
    ControlEnd,
    ControlImage,
    ControlNetName,
    ControlScale,
    ControlStart,
    read_control,
)
from spectral_fusion.cli.places import read_regions, read_spans, warnings_told
from spectral_fusion.cli.select import LibraryFolder, Loras, LoraWeights, select_concepts, select_loras, with_tagged
from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.base.interface import Base
    from spectral_fusion.concept import Concept
    from spectral_fusion.generation import GenerateConfig, Picture


STRENGTH, UPSCALE_STRENGTH = 0.6, 0.4
WHOLE = (1.0, 0.0, 1.0)  # scale, start and end of a control picture that guides all along


def generate(
    prompt: asked.Prompt,
    concepts: asked.Concepts = None,
    weights: asked.Weights = None,
    loras: Loras = None,
    lora_weights: LoraWeights = None,
    base: asked.BaseOfConcepts = None,
    library: LibraryFolder = None,
    negative: asked.Negative = "",
    steps: asked.Steps = 25,
    guidance_scale: asked.Guidance = 5.0,
    sampler: asked.Sampler = "DPM++ 2M",
    seed: asked.Seed = None,
    num_images: asked.Count = 1,
    width: asked.Side = None,
    height: asked.Side = None,
    region: asked.Regions = None,
    region_concepts: asked.RegionConcepts = None,
    bind: asked.Bind = True,
    concept_steps: asked.ConceptSteps = None,
    init_image: asked.InitImage = None,
    strength: asked.Strength = STRENGTH,
    mask: asked.Mask = None,
    controlnet: ControlNetName = None,
    control_image: ControlImage = None,
    control_scale: ControlScale = WHOLE[0],
    control_start: ControlStart = WHOLE[1],
    control_end: ControlEnd = WHOLE[2],
    upscale: asked.Upscale = 1.0,
    upscale_strength: asked.UpscaleStrength = UPSCALE_STRENGTH,
    detail: asked.Detail = 0.0,
    composite: asked.Composite = 0.0,
    grid: asked.Grid = None,
    out: asked.Out = Path("out"),
    device: Device = None,
    precision: Precision = None,
    prediction_type: PredictionType = None,
    low_memory: LowMemory = False,
    offload_blocks: OffloadBlocks = False,
    quantize: Quantize = None,
    reduce: asked.Reduce = "sum",
    on_overlap: asked.OnOverlap = "error",
    config: ConfigFile = None,
) -> None:
    """Generate pictures that hold any number of concepts."""
    _generate(SimpleNamespace(**locals()))


def _generate(flags: Any) -> None:
    """flags: what `generate` was given, by its parameters' names."""
    from spectral_fusion.picture.files import check_folder

    prompt, chosen = _read_prompt(flags)
    control = read_control(
        flags.controlnet, flags.control_image, flags.control_scale, flags.control_start, flags.control_end
    )
    settings = _settings(flags, prompt, chosen)
    for note in _unused(flags, settings, chosen):
        typer.echo(f"note: {note}", err=True)
    check_folder(flags.out)
    if flags.grid and not chosen:
        raise InputError("--grid varies the weights of concepts; name some with --concepts")
    base = base_for(flags.base, chosen)
    where = (flags.device, flags.precision, flags.prediction_type)
    opened = open_base(base, *where, chosen, flags.low_memory, flags.offload_blocks, flags.quantize)
    settings = replace(settings, control=control and control.opened(opened))
    beside = select_loras(flags.loras, flags.lora_weights, opened)
    fusing = {} if beside or flags.quantize else {"reduce": flags.reduce, "on_overlap": flags.on_overlap}
    rows = _generate_rows(opened, settings, chosen | beside, flags.grid or [1.0], fusing, flags.out)
    if flags.grid:
        _save_sheet(rows, flags.grid, flags.out)


def _read_prompt(flags: Any) -> tuple[str, dict["Concept", float]]:
    """The prompt without its `<lora:...>` tags, and the concepts of the flags and the tags."""
    from spectral_fusion.base.prompt import take_lora_tags

    prompt, tagged = take_lora_tags(flags.prompt)
    chosen = select_concepts(flags.concepts, flags.weights, flags.library)
    return prompt, with_tagged(chosen, tagged, flags.library)


def _settings(flags: Any, prompt: str, chosen: dict["Concept", float]) -> "GenerateConfig":
    """The settings, with the pictures that files hold."""
    from spectral_fusion.base.painted import read_mask
    from spectral_fusion.generation import GenerateConfig
    from spectral_fusion.reading.pictures import load_picture

    return GenerateConfig(
        prompt,
        flags.negative,
        num_inference_steps=flags.steps,
        guidance_scale=flags.guidance_scale,
        sampler=flags.sampler,
        seed=_draw_seed() if flags.seed is None else flags.seed,
        num_images=flags.num_images,
        height=flags.height,
        width=flags.width,
        regions=read_regions(flags.region or [], flags.region_concepts, chosen, bind=flags.bind),
        spans=read_spans(flags.concept_steps or []),
        init_image=None if flags.init_image is None else load_picture(flags.init_image),
        strength=flags.strength,
        repaint=None if flags.mask is None else read_mask(flags.mask),
        upscale=flags.upscale,
        upscale_strength=flags.upscale_strength,
        detail=flags.detail,
        composite=flags.composite,
    )


def _unused(flags: Any, settings: "GenerateConfig", chosen: dict["Concept", float]) -> Iterator[str]:
    """A line for each flag that was given and has no effect beside the others."""
    if flags.init_image is None and flags.strength != STRENGTH:
        yield "--strength has no effect without --init-image"
    if flags.upscale == 1 and flags.upscale_strength != UPSCALE_STRENGTH:
        yield "--upscale-strength has no effect without --upscale"
    numbers = (flags.control_scale, flags.control_start, flags.control_end)
    if flags.controlnet is None and numbers != WHOLE:
        yield "the numbers of a control picture have no effect without --controlnet"
    if not flags.bind and flags.region_concepts:
        yield "--region-concepts has no effect with --no-bind"
    live = flags.loras or flags.quantize or settings.spans or any(region.concepts for region in settings.regions)
    if flags.reduce != "sum" and (live or not chosen):
        why = (
            "concepts that act in places, in a part of the steps, beside LoRAs or a quantized base are not fused"
            if live
            else "no concepts"
        )
        yield f"--reduce {flags.reduce} has no effect: {why}"


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
