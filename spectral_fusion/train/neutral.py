"""Prompts about everyday things, in words that a base knows: what a concept should leave alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import CLIPTokenizer

from spectral_fusion.train.captions import TEMPLATES
from spectral_fusion.train.randomness import chance, randint

NOUNS = (
    *("cat", "dog", "bird", "horse", "fish", "man", "woman", "child", "car", "bicycle", "boat", "house", "tree"),
    *("flower", "ball", "cup", "mug", "chair", "table", "robot", "book", "cake"),
)
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
DETAILS = ("with stripes", "with spots", "with checks", "with a hat", "with a scarf", "with a patch", "with flowers")
PLACES = ("on grass", "on sand", "in the snow", "at night", "at sea", "in a room", "in a forest", "in a city")
DECOY = "{decoy}"


@dataclass(frozen=True)
class NeutralPrompt:
    """A prompt without the subject. `{decoy}` in it stands before `noun`, where a concept's trigger would."""

    text: str
    noun: str

    @property
    def has_decoy(self) -> bool:
        return DECOY in self.text


@dataclass(frozen=True)
class Words:
    """What prompts are made of; `nouns` is not empty."""

    nouns: Sequence[str]
    colors: Sequence[str]
    details: Sequence[str]
    places: Sequence[str]


def neutral_prompts(
    tokenizer: CLIPTokenizer, class_word: str, count: int, source: torch.Generator, *, decoys: float
) -> list[NeutralPrompt]:
    """Prompts of one or two things, half of the first things being of the class.

    Args:
        decoys: share of prompts with a decoy; in the others things may have a colour.
    """
    nouns = known(tokenizer, NOUNS) or [class_word]
    words = Words(nouns, *(known(tokenizer, phrases) for phrases in (COLORS, DETAILS, PLACES)))
    return [_prompt(words, class_word, decoys, source) for _ in range(count)]


def known(tokenizer: CLIPTokenizer, phrases: Sequence[str]) -> list[str]:
    """The phrases of which each word is one token: words that the base has seen often."""
    return [p for p in phrases if len(tokenizer(p, add_special_tokens=False).input_ids) == len(p.split())]


def _prompt(words: Words, class_word: str, decoys: float, source: torch.Generator) -> NeutralPrompt:
    noun = class_word if chance(0.5, source) else _pick(words.nouns, source)
    before = DECOY if chance(decoys, source) else _perhaps(0.75, words.colors, source)
    things = [_thing(before, noun, words, source)]
    if chance(0.4, source):
        other = _perhaps(0.75, words.colors, source)
        things.insert(randint(2, source), _thing(other, _pick(words.nouns, source), words, source))
    scene = TEMPLATES[randint(len(TEMPLATES), source)].format(" and a ".join(things))
    return NeutralPrompt(f"{scene} {_perhaps(0.75, words.places, source)}".strip(), noun)


def _thing(before: str, noun: str, words: Words, source: torch.Generator) -> str:
    return " ".join(part for part in (before, noun, _perhaps(0.5, words.details, source)) if part)


def _pick(phrases: Sequence[str], source: torch.Generator) -> str:
    return phrases[randint(len(phrases), source)]


def _perhaps(probability: float, phrases: Sequence[str], source: torch.Generator) -> str:
    return _pick(phrases, source) if phrases and chance(probability, source) else ""
