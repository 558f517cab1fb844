"""Prompts about everyday things, in words that a base knows: what a concept should leave alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import CLIPTokenizer

from spectral_fusion.train.captions import TEMPLATES
from spectral_fusion.train.randomness import chance, generator, randint

NOUNS = (
    *("cat", "dog", "bird", "horse", "fish", "man", "woman", "child", "car", "bicycle", "boat", "house", "tree"),
    *("flower", "ball", "cup", "mug", "chair", "table", "robot", "book", "cake"),
)
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
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


def neutral_prompts(
    tokenizer: CLIPTokenizer, class_word: str, count: int, seed: int, *, decoys: float
) -> list[NeutralPrompt]:
    """Prompts of one or two things, half of the first things being of the class.

    Args:
        decoys: share of prompts with a decoy; in the others things may have a colour.
    """
    source = generator(seed, "neutral prompts")
    nouns = known(tokenizer, NOUNS) or [class_word]
    colors, places = known(tokenizer, COLORS), known(tokenizer, PLACES)
    return [_prompt(nouns, colors, places, class_word, decoys, source) for _ in range(count)]


def known(tokenizer: CLIPTokenizer, phrases: Sequence[str]) -> list[str]:
    """The phrases of which each word is one token: words that the base has seen often."""
    return [p for p in phrases if len(tokenizer(p, add_special_tokens=False).input_ids) == len(p.split())]


def _prompt(
    nouns: Sequence[str],
    colors: Sequence[str],
    places: Sequence[str],
    class_word: str,
    decoys: float,
    source: torch.Generator,
) -> NeutralPrompt:
    noun = class_word if chance(0.5, source) else _pick(nouns, source)
    before = DECOY if chance(decoys, source) else _perhaps(colors, source)
    things = [f"{before} {noun}".strip()]
    if chance(0.4, source):
        things.insert(randint(2, source), f"{_perhaps(colors, source)} {_pick(nouns, source)}".strip())
    text = f"{TEMPLATES[randint(len(TEMPLATES), source)].format(' and a '.join(things))} {_perhaps(places, source)}"
    return NeutralPrompt(text.strip(), noun)


def _pick(phrases: Sequence[str], source: torch.Generator) -> str:
    return phrases[randint(len(phrases), source)]


def _perhaps(phrases: Sequence[str], source: torch.Generator) -> str:
    """One of the phrases, three times out of four."""
    return _pick(phrases, source) if phrases and chance(0.75, source) else ""
