"""Everyday words to make neutral prompts of."""

from collections.abc import Callable
from dataclasses import dataclass

Phrases = tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """What prompts about everyday things are made of."""

    nouns: Phrases
    colors: Phrases
    details: Phrases
    places: Phrases

    def known_to(self, is_one_token: Callable[[str], bool]) -> "Vocabulary":
        """The phrases of which each word is one token: words that a base has seen often."""

        def known(phrases: Phrases) -> Phrases:
            return tuple(phrase for phrase in phrases if all(map(is_one_token, phrase.split())))

        return Vocabulary(*map(known, (self.nouns, self.colors, self.details, self.places)))


EVERYDAY = Vocabulary(
    nouns=(
        *("cat", "dog", "bird", "horse", "fish", "man", "woman", "child", "car", "bicycle", "boat", "house", "tree"),
        *("flower", "ball", "cup", "mug", "chair", "table", "robot", "book", "cake"),
    ),
    colors=("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
    details=("with stripes", "with spots", "with checks", "with a hat", "with a scarf", "with a patch", "with flowers"),
    places=("on grass", "on sand", "in the snow", "at night", "at sea", "in a room", "in a forest", "in a city"),
)
