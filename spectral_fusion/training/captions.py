"""Captions of training pictures: the file's own, or a template with the class word."""

import re
from collections.abc import Sequence

import torch

from spectral_fusion.base.interface import Base
from spectral_fusion.concept.images import Photo
from spectral_fusion.errors import InputError
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


def cut_captions(base: Base, photos: Sequence[Photo], config: ResolvedConfig) -> list[str]:
    """A line where captions are longer than a base reads.

    Raises:
        InputError: a caption's trigger stands behind what is read, so that the picture could not teach it.
    """
    cut = []
    for photo in photos:
        caption = photo.caption and with_trigger(photo.caption, config.trigger, config.class_word)
        if not caption or not base.unread(caption):
            continue
        cut.append(photo)
        head, trigger, _ = caption.partition(config.trigger)
        if base.unread(head + trigger):
            raise InputError(
                f"the caption of {photo.path} has {trigger} behind all that this base reads; begin it with {trigger}"
            )
    if not cut:
        return []
    return [
        f"{len(cut)} captions are longer than this base reads, and the rest is left out: the first is of {cut[0].path}"
    ]


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
