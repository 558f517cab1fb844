"""Prompts about everyday things, in words that a base knows: what a concept should leave alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from spectral_fusion.base.vocabulary import Vocabulary
from spectral_fusion.training.captions import TEMPLATES
from spectral_fusion.training.randomness import chance, randint

DECOY = "{decoy}"
CONSONANTS, VOWELS = "bdfgjklmnprstvz", "aeiou"


@dataclass(frozen=True)
class NeutralPrompt:
    """A prompt without the subject. `{decoy}` in it stands before `noun`, where a concept's trigger would."""

    text: str
    noun: str

    @property
    def has_decoy(self) -> bool:
        return DECOY in self.text


def neutral_prompts(
    vocabulary: Vocabulary, class_word: str, count: int, source: torch.Generator, *, decoys: float
) -> list[NeutralPrompt]:
    """Prompts of one or two things, half of the first things being of the class.

    Args:
        vocabulary: words that the base knows.
        decoys: share of prompts with a random trigger; in the others things may have a colour.
    """
    words = vocabulary if vocabulary.nouns else replace(vocabulary, nouns=(class_word,))
    return [_prompt(words, class_word, decoys, source) for _ in range(count)]


def made_up_word(source: torch.Generator) -> str:
    """Three to six letters that can be spoken and mean nothing."""
    letters = (CONSONANTS, VOWELS)
    return "".join(_pick(letters[place % 2], source) for place in range(3 + randint(4, source)))


def _prompt(words: Vocabulary, class_word: str, decoys: float, source: torch.Generator) -> NeutralPrompt:
    noun = class_word if chance(0.5, source) else _pick(words.nouns, source)
    before = DECOY if chance(decoys, source) else _perhaps(0.75, words.colors, source)
    things = [_thing(before, noun, words, source)]
    if chance(0.4, source):
        other = _perhaps(0.75, words.colors, source)
        things.insert(randint(2, source), _thing(other, _pick(words.nouns, source), words, source))
    scene = TEMPLATES[randint(len(TEMPLATES), source)].format(" and a ".join(things))
    return NeutralPrompt(f"{scene} {_perhaps(0.75, words.places, source)}".strip(), noun)


def _thing(before: str, noun: str, words: Vocabulary, source: torch.Generator) -> str:
    return " ".join(part for part in (before, noun, _perhaps(0.5, words.details, source)) if part)


def _pick(phrases: Sequence[str], source: torch.Generator) -> str:
    return phrases[randint(len(phrases), source)]


def _perhaps(probability: float, phrases: Sequence[str], source: torch.Generator) -> str:
    return _pick(phrases, source) if phrases and chance(probability, source) else ""
