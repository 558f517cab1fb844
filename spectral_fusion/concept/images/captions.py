"""Captions of pictures: text files beside them, and the placeholders that trainers write for a concept's token."""

import re
from pathlib import Path

from spectral_fusion.concept.images.table import METADATA
from spectral_fusion.reading import read_text

__all__ = ["ENDINGS", "METADATA", "PLACEHOLDER", "read_caption", "tidy"]

ENDINGS = (".txt", ".caption")
PLACEHOLDER = "<TOK>"
# ai-toolkit, Replicate's trainers, OneTrainer, textual inversion's templates, the DreamBooth paper
OTHERS = re.compile(r"\[trigger\]|\{trigger\}|<trigger>|\[name\]|<embedding>|<token>|\[V\]|(?<![\w<])TOK(?![\w>])")


def read_caption(path: Path) -> str | None:
    """The caption in `path`, as `tidy` gives it; None where the file holds no text. Raises InputError."""
    return tidy(read_text(path)) or None


def tidy(caption: str) -> str:
    """A caption on one line, with `<TOK>` for the placeholders of other trainers."""
    return OTHERS.sub(PLACEHOLDER, " ".join(caption.split()))
