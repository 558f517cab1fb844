"""Captions of training pictures: the file's own, or a template with the class word."""

import re

import torch

from spectral_fusion.names import respell
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.randomness import chance, randint

PLACEHOLDER = "<TOK>"
TEMPLATES = ("a photo of a {}", "a picture of a {}", "a {}")


def with_trigger(caption: str, trigger: str, class_word: str) -> str:
    """`caption` with the trigger for `<TOK>`; a caption that names neither gets it before the class word, or in front.

    Without a trigger in it, a caption would teach the token nothing.
    """
    caption = respell(caption.replace(PLACEHOLDER, trigger), [trigger])
    if trigger in caption:
        return caption
    named = re.sub(rf"\b{re.escape(class_word)}\b", lambda word: f"{trigger} {word[0]}", caption, count=1)
    return named if named != caption else f"{trigger} {class_word}, {caption}"


def draw_caption(own: str | None, subject: str, config: ResolvedConfig, source: torch.Generator) -> str:
    """The caption of one picture in one step.

    Args:
        own: the picture's caption, trigger already in it; None for a template.
        subject: what templates speak of: `<rex> dog`, or `dog` for pictures of the class.
        source: decides on template, order and dropout.
    """
    caption = TEMPLATES[randint(len(TEMPLATES), source)].format(subject) if own is None else own
    if config.shuffle_captions:
        tags = [tag.strip() for tag in caption.split(",")]
        fixed, loose = tags[: config.keep_tags], tags[config.keep_tags :]
        order = torch.randperm(len(loose), generator=source).tolist()
        caption = ", ".join([*fixed, *(loose[place] for place in order)])
    return "" if chance(config.caption_dropout, source) else caption
