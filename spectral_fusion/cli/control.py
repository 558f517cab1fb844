"""Control pictures, as `generate` takes them on the command line; the flags are called as in diffusers."""

from pathlib import Path
from typing import Annotated

import typer

from spectral_fusion.base.asked import ControlAsked
from spectral_fusion.cli.command import check_together

Option = typer.Option
ControlNetName = Annotated[
    str | None, Option("--controlnet", help="A ControlNet for this kind of base: a diffusers folder or a hub id.")
]
ControlImage = Annotated[
    Path | None, Option(help="What it reads, such as edges, a depth map or a pose; cut to the new picture's shape.")
]
ControlScale = Annotated[
    float, Option("--controlnet-conditioning-scale", help="How strongly the control picture guides; 0: not at all.")
]
ControlStart = Annotated[float, Option("--control-guidance-start", help="From which part of the steps on it guides.")]
ControlEnd = Annotated[float, Option("--control-guidance-end", help="Until which part of the steps it guides.")]


def read_control(name: str | None, image: Path | None, scale: float, start: float, end: float) -> ControlAsked | None:
    """What the flags ask for; None without them.

    Raises:
        InputError: one of model and picture without the other, no picture, or a number that cannot be used.
    """
    from spectral_fusion.base.control import check_control
    from spectral_fusion.reading.pictures import load_picture

    check_control(scale, start, end)
    check_together({"--controlnet": name, "--control-image": image})
    if name is None or image is None:
        return None
    return ControlAsked(name, load_picture(image), scale, start, end)
