"""`spectral-fusion export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spectral_fusion.cli.select import LibraryFolder, select_concepts
from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.concept import Concept

Format = Literal["diffusers", "kohya"]
FORMAT_HELP = (
    "kohya: for every other program, ComfyUI, Forge and kohya's scripts read it whole; diffusers: for diffusers alone."
)
READ_BY_COMFYUI = ("flux", "z-image")  # under diffusers' names; SD 3 and FLUX.2 were not checked
Half = Annotated[bool, typer.Option("--half", help="Write 16-bit numbers: half the size, 1/1000 less exact.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def export(
    concept: Annotated[str, typer.Argument(help="A concept file, its folder, or a name of the library.")],
    to: Annotated[Format, typer.Option(help=FORMAT_HELP)] = "diffusers",
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

    from spectral_fusion.concept import export_lora
    from spectral_fusion.concept.lora import unread_by_kohya

    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} must end in .safetensors; LoRA files are of that format")
    folder = out.with_name(f"{out.stem}-embeddings")
    for target in (out, *(folder / f"{concept.name}.safetensors" for concept in concepts if concept.embeddings)):
        if target.exists() and not force:
            raise InputError(f"{target} exists already; choose another --out, or --force to replace it")
    path = export_lora(concepts, out, to, dtype=torch.float16 if half else torch.float32)
    if to == "diffusers":
        family = next(iter(concepts)).family
        others = "; other programs need --to kohya" if family in ("sd", "sdxl") else ""
        typer.echo(f"LoRA       {path}: for diffusers{' and ComfyUI' if family in READ_BY_COMFYUI else others}")
    else:
        typer.echo(f"LoRA       {path}: for ComfyUI, Forge, kohya's scripts and others")
        if skipped := unread_by_kohya(concepts):
            typer.echo(f"note: kohya's own scripts do not read {', '.join(skipped)}; ComfyUI and Forge do")
    write_embeddings(concepts, out)


def write_embeddings(concepts: dict["Concept", float], out: Path) -> None:
    """Write an embedding for each concept in a folder beside a LoRA, and say their use."""
    from spectral_fusion.concept import export_embedding

    folder = out.with_name(f"{out.stem}-embeddings")
    for concept in (concept for concept in concepts if concept.embeddings):
        path = export_embedding(concept, folder / f"{concept.name}.safetensors")
        typer.echo(f"embedding  {path}: {concept.trigger} in diffusers, {concept.name} where the file's name counts")
