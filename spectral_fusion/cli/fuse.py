"""`spectral-fusion fuse`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spectral_fusion.cli.base import Precision, base_for, open_base
from spectral_fusion.cli.command import ConfigFile
from spectral_fusion.cli.export import Force, Format, Half, write_embeddings, write_lora
from spectral_fusion.cli.select import LibraryFolder, Loras, LoraWeights, select_concepts, select_loras
from spectral_fusion.cli.tables import band_map, concept_table, overlap_table, room, wide_console
from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.concept import Concept
    from spectral_fusion.concept.joint import Overlap


def fuse(
    concepts: Annotated[list[str], typer.Argument(help="Names of the library, or concept files.")],
    weights: Annotated[list[float] | None, typer.Option(help="One per concept, in order. Default: 1 each.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for a diffusers pipeline, or a .safetensors file for a LoRA. None: check only."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Default: the one that the concepts were trained on.")] = None,
    precision: Precision = None,
    library: LibraryFolder = None,
    loras: Loras = None,
    lora_weights: LoraWeights = None,
    reduce: Annotated[
        Literal["sum", "mean", "routed"],
        typer.Option(help="The mean weakens each of n to 1/n; routed makes each act on its own prompts as alone."),
    ] = "sum",
    shrinkage: Annotated[float, typer.Option(help="Of routed: 0 is full, the larger the nearer to the sum.")] = 3.0,
    on_overlap: Annotated[Literal["error", "warn", "allow"], typer.Option(help="Where two bands overlap.")] = "error",
    to: Annotated[Format, typer.Option(help="Naming of a LoRA file.")] = "kohya",
    half: Half = False,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the check as JSON.")] = False,
    config: ConfigFile = None,
) -> None:
    """Fuse concepts into one pipeline or one LoRA; without --out, check whether they go together."""
    from spectral_fusion.fusion import check_together, scaled_weights

    chosen = select_concepts(concepts, weights, library)
    scaled = scaled_weights(chosen, reduce)
    overlaps = check_together(list(chosen), "allow")
    if as_json:
        typer.echo(json.dumps(_check_record(scaled, overlaps), indent=2))
    else:
        _print_check(scaled, overlaps)
    check_together(list(chosen), on_overlap)
    if out is None and not loras:
        return
    if loras or reduce == "routed" or out is None:
        _write_fusion(chosen, (loras, lora_weights), out, base, precision, (reduce, shrinkage), to, half, force)
    elif out.suffix == ".safetensors":
        write_lora(scaled, out, to, half=half, force=force)
    else:
        _write_folder(chosen, out, base, precision, {"reduce": reduce, "on_overlap": "allow"}, force)


def _write_folder(
    concepts: dict["Concept", float],
    out: Path,
    base: str | None,
    precision: str | None,
    options: dict[str, str],
    force: bool,
) -> None:
    from spectral_fusion.base.quiet import quietly
    from spectral_fusion.fusion import fuse as fuse_concepts

    if out.exists() and not force:
        raise InputError(f"{out} exists already; choose another --out, or --force to replace it")
    opened = open_base(base_for(base, concepts), "cpu", precision, concepts=concepts)
    with quietly():
        path = fuse_concepts(opened, concepts, **options).save(out, force=force)  # type: ignore[arg-type]
    triggers = ", ".join(concept.trigger for concept in concepts)
    dtype = {None: "", "fp32": "", "fp16": ", dtype=torch.float16", "bf16": ", dtype=torch.bfloat16"}[precision]
    typer.echo(f'{path}  loads with {opened.stock_class}.from_pretrained("{path}"{dtype}); triggers: {triggers}')


def _write_fusion(
    concepts: dict["Concept", float],
    loras: tuple[list[str] | None, list[float] | None],
    out: Path | None,
    base: str | None,
    precision: str | None,
    how: tuple[str, float],
    to: Format,
    half: bool,
    force: bool,
) -> None:
    """Fusions that need a base to be found: with LoRAs, or routed."""
    import torch

    from spectral_fusion.concept.community import lora_overlaps
    from spectral_fusion.fusion import fuse as fuse_concepts

    if out is not None and out.exists() and not force:
        raise InputError(f"{out} exists already; choose another --out, or --force to replace it")
    opened = open_base(base_for(base, concepts), "cpu", precision, None, concepts)
    beside = select_loras(*loras, opened)
    for lora in beside:
        typer.echo(f"LoRA {lora.name}: {len(lora.layers)} layers, rank {lora.rank}, words {lora.trigger or 'none'}")
        for overlap in lora_overlaps(lora, list(concepts)):
            typer.echo(f"  cosine with {overlap.second}: {overlap.value:.3f} at most, in {overlap.layer}")
    if out is None:
        return
    fusion = fuse_concepts(opened, concepts, loras=beside, reduce=how[0], shrinkage=how[1], on_overlap="allow")  # type: ignore[arg-type]
    if fusion.cost:
        typer.echo(fusion.cost)
    if out.suffix == ".safetensors":
        typer.echo(f"LoRA  {fusion.export(out, to, dtype=torch.float16 if half else torch.float32)}")
        write_embeddings(concepts, out)
    else:
        typer.echo(fusion.save(out, force=force))


def _print_check(weights: dict["Concept", float], overlaps: list["Overlap"]) -> None:
    from spectral_fusion.fusion import OVERLAP_TOLERANCE

    console, concepts = wide_console(), list(weights)
    console.print(concept_table(concepts, list(weights.values())))
    console.print()
    console.print(band_map(concepts))
    if overlaps:
        console.print()
        console.print(overlap_table(overlaps, OVERLAP_TOLERANCE))
    console.print()
    console.print(room(_free(concepts), concepts[0].band.rank))


def _check_record(weights: dict["Concept", float], overlaps: list["Overlap"]) -> dict[str, object]:
    return {
        "base": next(iter(weights)).base,
        "concepts": [
            {
                "name": c.name,
                "trigger": c.trigger,
                "band": c.band.index,
                "side": c.band.side,
                "rank": c.band.rank,
                "weight": weight,
            }
            for c, weight in weights.items()
        ],
        "overlaps": [vars(overlap) for overlap in overlaps],
        "room": _free(list(weights)),
    }


def _free(concepts: list["Concept"]) -> int:
    """How many more concepts of the first one's rank fit."""
    from spectral_fusion.concept.claim import room_left

    directions = min(concept.directions for concept in concepts)
    return room_left([concept.band for concept in concepts], concepts[0].band.rank, directions)
