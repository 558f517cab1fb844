"""The tokenizer of the second edition: CLIP's byte-pair format, each word of the drawn world one token."""

from __future__ import annotations

from functools import cache

from transformers import CLIPTokenizer

from spectral_fusion.toybox.tokens import tokenizer_of
from spectral_fusion.toybox128.caption import PATTERN_WORDS, POSE_WORDS, PREFIXES
from spectral_fusion.toybox128.people import CUTS, GARMENTS
from spectral_fusion.toybox128.world import ACCESSORIES, BACKGROUNDS, CLASSES, COLORS, HAIR, UNUSUAL_COLORS

MAX_LENGTH = 64
_MORE_WORDS = (
    "a an and at the of with in on to next behind front left right middle far away close-up close up close - , "
    "beard hair wearing photo picture drawing one two three four person people animal toy small large big happy"
)


def words() -> list[str]:
    """Every word that is to be one token, in a fixed order."""
    phrases = [*CLASSES, *COLORS, *UNUSUAL_COLORS, *HAIR, *PATTERN_WORDS.values(), *POSE_WORDS, *ACCESSORIES]
    phrases += [*CUTS.values(), *GARMENTS.values(), *PREFIXES, _MORE_WORDS]
    phrases += [phrase for wordings in BACKGROUNDS.values() for phrase in wordings]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split() if word.isalpha()))


@cache
def make_tokenizer() -> CLIPTokenizer:
    """A stock `CLIPTokenizer` over `words()`; it pads with the end token, as Stable Diffusion 1.x does."""
    return tokenizer_of(words(), MAX_LENGTH)
