"""`spectral-fusion generate`."""

from pathlib import Path
from typing import Annotated

import typer

from spectral_fusion.cli.command import ConfigFile


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw, with the triggers of the concepts: <rex>.")],
    concepts: Annotated[list[str] | None, typer.Option(help="Concepts of the library, or concept files.")] = None,
    weights: Annotated[list[float] | None, typer.Option(help="One weight per concept.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out"),
    config: ConfigFile = None,
) -> None:
    """Generate pictures that hold any number of concepts."""
    print(prompt, concepts, weights, out)
