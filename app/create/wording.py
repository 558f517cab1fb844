"""How prompts speak of concepts: triggers as they are spelled, and what a region begins with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Protocol

from spectral_fusion.errors import InputError
from spectral_fusion_app.library.loras import LoraInfo

TRIGGER = re.compile(r"<[\w-]+>")


class Known(Protocol):
    """What prompts can speak of: a concept, or a LoRA, which may have no trigger."""

    @property
    def name(self) -> str: ...
    @property
    def trigger(self) -> str: ...
    @property
    def class_word(self) -> str: ...


def is_lora(info: Known) -> bool:
    """Whether it is a LoRA of another program."""
    return isinstance(info, LoraInfo)


class Spelling:
    """Triggers in a prompt as their concepts write them: case does not matter to whoever types.

    Raises:
        InputError: when called, with a trigger that nothing has, which names the nearest.
    """

    def __init__(self, concepts: Iterable[Known], others: Sequence[str] = ()) -> None:
        own = [trigger for info in concepts for trigger in TRIGGER.findall(info.trigger)]
        self.known = {trigger.lower(): trigger for trigger in (*others, *own)}

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


def phrase(info: Known) -> str:
    """How a prompt speaks of a concept: `a <rex> dog`."""
    return f"a {info.trigger} {info.class_word}".strip()


def region_phrase(prompt: str, info: Known, others: Sequence[Known]) -> str:
    """What a region of a concept begins with: the picture's prompt without the others' triggers.

    All regions together settle what stands where, so each tells of the whole picture; a prompt that does not speak of
    the concept yet gives `a <rex> dog`.
    """
    if not info.trigger:
        return prompt
    if info.trigger.lower() not in prompt.lower():
        return phrase(info)
    for other in others:
        if other.trigger and other.trigger != info.trigger:
            prompt = remove(prompt, other)
    return prompt


def remove(prompt: str, info: Known) -> str:
    """The prompt without a concept's trigger: `a <rex> dog` becomes `a dog`."""
    return re.sub(rf"\s*{re.escape(info.trigger)}", "", prompt, flags=re.IGNORECASE).strip()


def used_concepts(concepts: Iterable[Known], prompts: Iterable[str], pinned: Sequence[str] = ()) -> list[str]:
    """Names of the concepts whose trigger stands in a prompt, as they come there, then of the pinned ones."""
    text = "\n".join(prompts).lower()
    places = {info.name: text.find(info.trigger.lower()) if info.trigger else -1 for info in concepts}
    named = sorted((name for name, place in places.items() if place >= 0), key=lambda name: places[name])
    return [*named, *(name for name in places if name in pinned and name not in named)]
