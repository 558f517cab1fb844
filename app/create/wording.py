"""How prompts speak of concepts: triggers as they are spelled, and what a region begins with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo

TRIGGER = re.compile(r"<[\w-]+>")


class Spelling:
    """Triggers in a prompt as their concepts write them: case does not matter to whoever types.

    Raises:
        InputError: when called, with a trigger that nothing has, which names the nearest.
    """

    def __init__(self, concepts: Iterable[ConceptInfo], others: Sequence[str] = ()) -> None:
        self.known = {trigger.lower(): trigger for trigger in (*others, *(info.trigger for info in concepts))}

    def __call__(self, text: str) -> str:
        return TRIGGER.sub(self._one, text)

    def _one(self, match: re.Match[str]) -> str:
        written = match.group()
        if written.lower() in self.known:
            return self.known[written.lower()]
        near = get_close_matches(written.lower(), self.known, n=1)
        advice = (
            f"did you mean {self.known[near[0]]}?" if near else f"there are: {', '.join(self.known.values()) or 'none'}"
        )
        raise InputError(f"no concept here has the trigger {written[:66]}; {advice}")


def phrase(info: ConceptInfo) -> str:
    """How a prompt speaks of a concept: `a <rex> dog`."""
    return f"a {info.trigger} {info.class_word}".strip()


def region_phrase(prompt: str, info: ConceptInfo, others: Sequence[ConceptInfo]) -> str:
    """What a region of a concept begins with: the picture's prompt without the others' triggers.

    All regions together settle what stands where, so each tells of the whole picture; a prompt that does not speak of
    the concept yet gives `a <rex> dog`.
    """
    if info.trigger.lower() not in prompt.lower():
        return phrase(info)
    for other in others:
        if other.trigger != info.trigger:
            prompt = remove(prompt, other)
    return prompt


def remove(prompt: str, info: ConceptInfo) -> str:
    """The prompt without a concept's trigger: `a <rex> dog` becomes `a dog`."""
    return re.sub(rf"\s*{re.escape(info.trigger)}", "", prompt, flags=re.IGNORECASE).strip()


def used_concepts(concepts: Iterable[ConceptInfo], prompts: Iterable[str], pinned: Sequence[str] = ()) -> list[str]:
    """Names of the concepts whose trigger stands in a prompt, as they come there, then of the pinned ones."""
    text = "\n".join(prompts).lower()
    places = {info.name: text.find(info.trigger.lower()) for info in concepts}
    named = sorted((name for name, place in places.items() if place >= 0), key=lambda name: places[name])
    return [*named, *(name for name in places if name in pinned and name not in named)]
