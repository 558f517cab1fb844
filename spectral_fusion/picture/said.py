"""Collecting what another tool said, under the names of the format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spectral_fusion.errors import shown

Said = tuple[str, str, dict[str, str], list[str]]
"""Prompt, negative prompt, settings, and phrases for what is left out."""
EMPTY: tuple[Any, ...] = (None, "", "None", [], {}, False, 0)
MOST_PHRASES = 40


class Settings:
    """Moves settings from a tool's own `rest` to `found`; what remains in the end is left out by name."""

    def __init__(self, tool: str, said: dict[str, Any]):
        self.tool, self.rest = tool, dict(said)
        self.found: dict[str, str] = {}
        self.lost: list[str] = []

    def take(self, **keys: str) -> None:
        """Move values over: `Steps="steps"` makes what the tool calls "steps" the format's "Steps"."""
        for name, key in keys.items():
            if isinstance(self.rest.get(key), (dict, list)):
                continue  # of a kind that has no place here: left out by name
            if (value := self.rest.pop(key, None)) not in (None, ""):
                self.found[name] = number_text(value)

    def pop(self, key: str) -> Any:
        """A value that needs a reading of its own; None where the tool does not say."""
        return self.rest.pop(key, None)

    def ignore(self, *keys: str) -> None:
        """Drop what says nothing about how to make the picture again."""
        for key in keys:
            self.rest.pop(key, None)

    def size(self, width: str, height: str) -> None:
        """The picture's size in pixels."""
        sides = [number_text(self.rest.get(key)) for key in (width, height)]
        if all(side.isdecimal() and len(side) < 7 for side in sides):
            self.found["Size"] = "x".join(sides)
            self.ignore(width, height)

    def loras(self, loras: Iterable[tuple[Any, Any]]) -> None:
        """Adapters of other kinds, which are no concepts of a library here."""
        self.lost += [f"LoRA {shown(str(name), 60)} at {number_text(weight)[:20]}" for name, weight in loras]

    def said(self, prompt: str, negative: str) -> Said:
        """All that was found; `prompt` and `negative`: what the tool calls these."""
        texts = [_text(self.rest.pop(key, "")) for key in (prompt, negative)]
        self.lost += [f"{key}: {shown(value, 60)}" for key, value in self.rest.items() if value not in EMPTY]
        return texts[0], texts[1], self.found, self.lost[:MOST_PHRASES]


def _text(value: Any) -> str:
    """A prompt, of one piece or several; empty where there is none."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))
    return "" if value is None else str(value)


def number_text(value: Any) -> str:
    """A value as the format writes it: 7, not 7.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
