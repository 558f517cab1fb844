"""What Library asks of the server: everything its script needs, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spectral_fusion.concept.notes import NOTES, Notes, read_notes
from spectral_fusion.errors import InputError, shown
from spectral_fusion_app.exports import Exports, links
from spectral_fusion_app.library.imports import add, remove, rename, restore
from spectral_fusion_app.library.loras import LoraInfo
from spectral_fusion_app.library.shelf import Shelf, ShelfCard
from spectral_fusion_app.library.shelf_html import bands_html, facts, icon, size_words
from spectral_fusion_app.paths import inside
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.visitors import Visitor
from spectral_fusion_app.web import Answer


class LibraryDesk:
    """The answers; each gets the visitor and what the script sent."""

    def __init__(self, studio: Studio, uploads: Path) -> None:
        self.studio, self.uploads = studio, uploads
        self.exports = Exports(studio.settings.exports)

    def answers(self) -> dict[str, Answer]:
        """By the names that the script calls."""
        return {
            "library": self.library,
            "rename": self.rename,
            "retrigger": self.retrigger,
            "export": self.export,
            "remove": self.remove,
            "restore": self.restore,
            "add": self.add,
            "note": self.note,
        }

    @property
    def shelf(self) -> Shelf:
        """The library."""
        return Shelf(self.studio.settings.library)

    def library(self, _: Visitor, __: Any) -> dict[str, Any]:
        """All concepts, what the bases have room for, and what can be brought back."""
        shelf = self.shelf
        return {
            "concepts": [
                *(self._card(card) for card in shelf.cards()),
                *(self._lora(info) for info in self.studio.loras.list()),
            ],
            "bands": bands_html(shelf.bands()),
            "removed": [*shelf.library.removed(), *self.studio.loras.removed()],
            "unreadable": shelf.unreadable(),
        }

    def rename(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Give a concept another name; its trigger stays."""
        to = text(data["to"], "name").strip()
        if to.startswith("<"):
            raise InputError(f"name {to[:40]!r} is a trigger; change it below, or give a name without brackets")
        return {"name": rename(self.studio, text(data["name"], "name"), to).name}

    def retrigger(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Give a concept another trigger; its name stays."""
        return {
            "name": self.shelf.library.set_trigger(
                text(data["name"], "name"), text(data["trigger"], "trigger").strip()
            ).name
        }

    def export(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Files for other programs."""
        files = self.shelf.export(text(data["name"], "name"), data["to"], self.exports.folder())
        return {"files": links(files, self.studio.settings)}

    def remove(self, _: Visitor, name: str) -> dict[str, Any]:
        """Into the bin."""
        remove(self.studio, text(name, "name"))
        return {"name": name}

    def restore(self, _: Visitor, name: str) -> dict[str, Any]:
        """Out of the bin."""
        return {"name": restore(self.studio, text(name, "name"))}

    def add(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Import an uploaded file."""
        file = inside([self.uploads], str(data["path"]))
        name, trigger = str(data.get("name") or ""), str(data.get("trigger") or "")
        return {"name": add(self.studio, file, name, trigger, bool(data.get("replace"))).name}

    def note(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Keep notes and tags beside a concept."""
        name, notes = text(data["name"], "name"), text(data.get("notes") or "", "notes")
        tags = list(
            dict.fromkeys(tag.strip() for tag in text(data.get("tags") or "", "tags").split(",") if tag.strip())
        )
        self.shelf.library.note(name, Notes(notes, tuple(tags)))
        return {"name": name}

    def _lora(self, info: LoraInfo) -> dict[str, Any]:
        """As a card of a concept, where what only those have is empty."""
        layers = f"{info.layers} layers of the base"
        known = {"Base": f"{info.base_name} {info.base}", "Changes": layers, "Rank": str(info.rank)}
        known |= {"Left out": f"{info.unmatched} keys that fit no layer"} if info.unmatched else {}
        return {
            **{"name": info.name, "trigger": info.trigger, "class": "", "base": info.base_name},
            **{"fits": info.base == self.studio.fingerprint, "band": "", "rank": info.rank, "lora": True},
            **{"bytes": info.size, "size": size_words(info.size), "icon": "", "facts": known, "notes": "", "tags": []},
        }

    def _card(self, card: ShelfCard) -> dict[str, Any]:
        info, kept = card.info, read_notes(card.preview.with_name(NOTES))
        return {
            "name": info.name,
            "trigger": info.trigger,
            "class": info.class_word,
            "base": info.base_name or info.base,
            "fits": info.base == self.studio.fingerprint,
            "band": info.band.label,
            "rank": info.band.rank,
            "bytes": card.size,
            "size": size_words(card.size),
            "icon": icon(card),
            "facts": facts(card),
            "notes": kept.text,
            "tags": list(kept.tags),
        }


def text(value: Any, what: str) -> str:
    """A value that is text. Raises InputError for another: `None` would be a name too."""
    if not isinstance(value, str):
        raise InputError(f"{what} is {shown(value, 40)}, which is no text; write it in quotes")
    return value
