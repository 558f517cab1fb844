"""What `generate` takes on the command line, an annotation an option."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Option = typer.Option

Prompt = Annotated[str, typer.Argument(help="What to draw, with the triggers of concepts: a <rex> dog on grass.")]
Concepts = Annotated[list[str] | None, Option(help="Concepts of the library, or concept files.")]
Weights = Annotated[list[float] | None, Option(help="One weight per concept; 1 where none are given.")]
BaseOfConcepts = Annotated[
    str | None,
    Option(
        help="toybox, toybox128, toybox-sd3, a diffusers folder, a .safetensors file or a hub id. "
        "Default: the concepts'."
    ),
]
Negative = Annotated[str, Option("--negative", "--negative-prompt", help="What not to draw.")]
Steps = Annotated[int, Option(help="Denoising steps.")]
Guidance = Annotated[float, Option("--guidance-scale", "--cfg-scale", help="How strictly to follow.")]
Sampler = Annotated[str, Option(help="DPM++ 2M, Euler a, DDIM, UniPC, ...; a wrong one lists them.")]
Seed = Annotated[int | None, Option(help="Of the first picture; the next count up. Default: drawn.")]
Count = Annotated[int, Option("--num-images", "--batch-size", "-n", help="How many pictures.")]
Side = Annotated[int | None, Option(help="Pixels; default: the base's own size.")]
Regions = Annotated[
    list[str] | None,
    Option(
        metavar="PROMPT PLACE",
        help='A prompt and its place: a box, --region "a <rex> dog" 0.05,0.2,0.5,0.95; a mask, a picture file, '
        "white inside; or auto, found by the model. Repeatable.",
    ),
]
RegionConcepts = Annotated[
    list[str] | None,
    Option(
        help="For each region, in order, the concepts that act in it alone: rex:0.8,tom or none. Default: those "
        "whose triggers its prompt names."
    ),
]
Bind = Annotated[
    bool, Option(help="Whether concepts act in their regions alone; else they are fused and act everywhere.")
]
ConceptSteps = Annotated[
    list[str] | None, Option(help="The part of the steps in which a concept acts: rex:0-0.6 tom:0.2-1.")
]
InitImage = Annotated[Path | None, Option(help="A picture to begin from, cut to the new one's shape.")]
Strength = Annotated[float, Option(help="How much of it is drawn anew: 0 leaves it, 1 takes nothing of it.")]
Mask = Annotated[Path | None, Option(help="Of the init image, draw anew what is white in this one.")]
Upscale = Annotated[float, Option(help="A second pass makes the picture so much larger; 1: there is none.")]
UpscaleStrength = Annotated[float, Option(help="How much that pass draws anew.")]
Detail = Annotated[float, Option(help="Draw each region's subject again by itself, at this strength.")]
Composite = Annotated[
    float,
    Option(help="Draw each region's subject by itself, cut it out and put it there; the ground anew, so strongly."),
]
Grid = Annotated[list[float] | None, Option(help="Also a sheet: these factors of the weights x the seeds.")]
Out = Annotated[Path, Option(help="Folder for the pictures; nothing in it is overwritten.")]
Reduce = Annotated[Literal["sum", "mean", "routed"], Option(help="How concepts are fused.")]
OnOverlap = Annotated[Literal["error", "warn", "allow"], Option(help="Where two bands overlap.")]
