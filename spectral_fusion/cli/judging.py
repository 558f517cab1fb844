"""What `evaluate` takes on the command line, an annotation an option."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Option = typer.Option

Names = Annotated[
    list[str] | None,
    typer.Argument(help="Two or more concepts of the library, or concept files. Default: all that --subjects lists."),
]
Images = Annotated[
    list[Path] | None, Option(help="A folder of photos per concept, in order. Default: LIBRARY/NAME/images.")
]
SubjectsOf = Annotated[
    Literal["dreambench"] | None,
    Option(help="Concepts are called after the subjects of this benchmark, whose prompts and photos are taken."),
]
PhotosOf = Annotated[Path | None, Option(help="Of --subjects: a folder that has one of photos for each subject.")]
Methods = Annotated[
    list[str] | None, Option(help="spectral-sum, spectral-mean, and lora-sum, lora-mean, which are trained first.")
]
Prompts = Annotated[list[str] | None, Option(help="What to draw; {} stands for the subject.")]
Seed = Annotated[int, Option(help="The first sampling seed.")]
Seeds = Annotated[int | None, Option(help="Pictures of each prompt. Default: 3, or the benchmark's.")]
Clip = Annotated[str | None, Option(help="Judges text: a CLIP folder or hub id. Default: by the base.")]
Dino = Annotated[str | None, Option(help="Judges identity: a DINO folder or hub id. Default: by the base.")]
Faces = Annotated[
    str | None, Option(help="Judges identity by faces (ArcFace): a model pack of insightface, or its folder.")
]
Detector = Annotated[
    str | None, Option(help="Finds subjects: an OWLv2 folder or hub id. Default: the base's own, or places.")
]
Out = Annotated[Path, Option(help="Folder for the report and the contact sheet.")]
JournalFile = Annotated[Path | None, Option(help="Write a JSON line a stage here, for other programs.")]
