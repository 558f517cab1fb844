"""The tokenizer of toybox: CLIP's byte-pair format, with merges that make each word of the drawn world one token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from spectral_fusion.toybox.world import BACKGROUNDS, CLASSES, COLORS, PREFIXES, UNUSUAL_COLORS

MAX_LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"
_MORE_WORDS = (
    "an and at the of with wearing left right middle photo picture drawing one two three "
    "hat scarf patch stripes spots checks sky floor beach winter summer star flower toy animal"
)


def words() -> list[str]:
    """Every word that is to be one token, in a fixed order."""
    phrases = [*CLASSES, *COLORS, *UNUSUAL_COLORS, *PREFIXES, _MORE_WORDS]
    phrases += [phrase for wordings in BACKGROUNDS.values() for phrase in wordings]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


def vocabulary(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's `vocab.json` and `merges.txt`: 256 bytes, the same bytes at a word's end, the merges, start and end."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = _merge([*word[:-1], word[-1] + "</w>"], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = [pieces[0] + pieces[1]]
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    tokens += [START, END]
    return {token: index for index, token in enumerate(tokens)}, merges


def _merge(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding: applies the merges, the earliest first. A later merge never undoes an earlier word."""
    for first, second in merges:
        i = 0
        while i < len(pieces) - 1:
            if (pieces[i], pieces[i + 1]) == (first, second):
                pieces[i : i + 2] = [first + second]
            i += 1
    return pieces


def tokenizer_of(words: Sequence[str], length: int) -> CLIPTokenizer:
    """A `CLIPTokenizer` in which each of `words` is one token; it pads with the end, as Stable Diffusion 1.x does."""
    vocab, merges = vocabulary(words)
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=length,
    )


@cache
def make_tokenizer() -> CLIPTokenizer:
    """The tokenizer of toybox."""
    return tokenizer_of(words(), MAX_LENGTH)
