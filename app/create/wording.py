"""How prompts speak of concepts: triggers as they are spelled, and what a region begins with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Protocol

from spectral_fusion.errors import InputError
from spectral_fusion.names import key, mentions, respell
from spectral_fusion_app.library.loras import LoraInfo


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
        own = [trigger for info in concepts for trigger in mentions(info.trigger)]
        self.known = {key(trigger): trigger for trigger in (*others, *own)}

    def __call__(self, text: str) -> str:
        for written in mentions(text):
            if key(written) not in self.known:
                self._refuse(written)
        return respell(text, self.known.values())

    def _refuse(self, written: str) -> None:
        near = get_close_matches(key(written), self.known, n=1)
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
    if key(info.trigger) not in key(prompt):
        return phrase(info)
    for other in others:
        if other.trigger and other.trigger != info.trigger:
            prompt = remove(prompt, other)
    return prompt


def remove(prompt: str, info: Known) -> str:
    """The prompt without a concept's trigger: `a <rex> dog` becomes `a dog`."""
    return re.sub(rf"\s*{re.escape(info.trigger)}", "", respell(prompt, [info.trigger]), flags=re.IGNORECASE).strip()


def used_concepts(concepts: Iterable[Known], prompts: Iterable[str], pinned: Sequence[str] = ()) -> list[str]:
    """Names of the concepts whose trigger stands in a prompt, as they come there, then of the pinned ones."""
    text = key("\n".join(prompts))
    places = {info.name: text.find(key(info.trigger)) if info.trigger else -1 for info in concepts}
    named = sorted((name for name, place in places.items() if place >= 0), key=lambda name: places[name])
    return [*named, *(name for name in places if name in pinned and name not in named)]
