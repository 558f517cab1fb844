"""`spectral-fusion export`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spectral_fusion.cli.select import LibraryFolder, select_concepts
from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.concept import Concept

Format = Literal["diffusers", "kohya"]
Half = Annotated[bool, typer.Option("--half", help="Write 16-bit numbers: half the size, 1/1000 less exact.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def export(
    concept: Annotated[str, typer.Argument(help="A concept file, its folder, or a name of the library.")],
    to: Annotated[
        Format,
        typer.Option(help="diffusers for diffusers; kohya for ComfyUI, Forge, AUTOMATIC1111 and kohya's scripts."),
    ] = "diffusers",
    out: Annotated[Path | None, typer.Option(help="Default: NAME-FORMAT.safetensors in this folder.")] = None,
    library: LibraryFolder = None,
    half: Half = False,
    force: Force = False,
) -> None:
    """Write a concept as an ordinary LoRA and a learned embedding, for other programs."""
    chosen = select_concepts([concept], library=library)
    name = next(iter(chosen)).name
    write_lora(chosen, out or Path(f"{name}-{to}.safetensors"), to, half=half, force=force)


def write_lora(concepts: dict["Concept", float], out: Path, to: Format, *, half: bool, force: bool) -> None:
    """Write one LoRA and, in a folder beside it, an embedding for each concept; say where they are and their use."""
    import torch

    from spectral_fusion.concept import export_embedding, export_lora

    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} must end in .safetensors; LoRA files are of that format")
    folder = out.with_name(f"{out.stem}-embeddings")
    for target in (out, *(folder / f"{concept.name}.safetensors" for concept in concepts if concept.embeddings)):
        if target.exists() and not force:
            raise InputError(f"{target} exists already; choose another --out, or --force to replace it")
    typer.echo(f"LoRA       {export_lora(concepts, out, to, dtype=torch.float16 if half else torch.float32)}")
    if note := read_by(concepts, to):
        typer.echo(f"           {note}")
    for concept in (concept for concept in concepts if concept.embeddings):
        path = export_embedding(concept, folder / f"{concept.name}.safetensors")
        typer.echo(f"embedding  {path}: {concept.trigger} in diffusers, {concept.name} where the file's name counts")


def read_by(concepts: Iterable["Concept"], to: Format) -> str:
    """Which programs read a file, where that is not all of them; "" where there is nothing to say."""
    from spectral_fusion.concept.keys import left_by_kohya

    family = next(iter(concepts)).family
    if to == "diffusers":
        return "for diffusers; write --to kohya for other programs" if family in ("sd", "sdxl") else ""
    left = left_by_kohya(dict.fromkeys(layer for concept in concepts for layer in concept.layers))
    return f"kohya's own scripts leave out {', '.join(left)}; ComfyUI reads them" if left else ""
