"""What a person keeps beside a concept: a text and tags, in a small JSON file of its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spectral_fusion.atomic import atomic_file
from spectral_fusion.errors import InputError, shown
from spectral_fusion.reading import read_json

NOTES = "notes.json"
LONGEST_NOTE, MOST_TAGS, LONGEST_TAG = 2000, 20, 40


@dataclass(frozen=True)
class Notes:
    """Raises InputError: a text that is too long, too many tags, or one that is empty, too long or no single line."""

    text: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.text) > LONGEST_NOTE:
            raise InputError(
                f"{len(self.text)} characters are more than the {LONGEST_NOTE} that notes may have; cut them"
            )
        if len(self.tags) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in self.tags):
            raise InputError(f"give up to {MOST_TAGS} tags of up to {LONGEST_TAG} letters, with commas between them")
        for tag in self.tags:
            if not tag.strip() or "," in tag or not tag.isprintable():
                raise InputError(f"{shown(tag)} cannot be a tag; write a word or two, without commas")

    def tagged(self, tags: Iterable[str]) -> Notes:
        """With these tags too, each once."""
        return Notes(self.text, tuple(dict.fromkeys([*self.tags, *tags])))

    def untagged(self, tags: Iterable[str]) -> Notes:
        """Without these tags; the inverse of `tagged`."""
        gone = set(tags)
        return Notes(self.text, tuple(tag for tag in self.tags if tag not in gone))

    def save(self, path: Path) -> None:
        """Write them, whole or not at all."""
        with atomic_file(path) as part:
            part.write_text(json.dumps({"notes": self.text, "tags": list(self.tags)}), encoding="utf-8")


def read_notes(path: Path) -> Notes:
    """The notes of a file; none where there is no file, or none that can be read: they must not hide a concept."""
    try:
        record = read_json(path)
        tags = record.get("tags") or []
        return Notes(str(record.get("notes") or ""), tuple(str(tag) for tag in tags))
    except (InputError, OSError, AttributeError, TypeError):
        return Notes()
