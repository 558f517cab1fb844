"""The head of every place: what this is, the base, light or dark; and news of what others change."""

from __future__ import annotations

from typing import Any

from spectral_fusion_app.studio import Studio, device_and_memory
from spectral_fusion_app.train.trainings import Trainings
from spectral_fusion_app.visitors import Visitor
from spectral_fusion_app.web import Answer


class Head:
    """The answers; each gets the visitor and what the script sent."""

    def __init__(self, studio: Studio, trainings: Trainings) -> None:
        self.studio, self.trainings = studio, trainings

    def answers(self) -> dict[str, Answer]:
        """By the names that the script calls."""
        return {"look": self.look, "load": self.load}

    def look(self, visitor: Visitor, _: Any) -> dict[str, Any]:
        """How it stands with what all share."""
        state = self.studio.state
        loads = self.studio.loads.jobs(visitor)
        failed = loads and loads[-1].state == "failed"
        return {
            "state": vars(state) | {"base": name_of(state.base), "next": name_of(state.next)},
            "device": device_and_memory() if state.kind == "ready" else "",
            "bases": self.studio.models.bases(),
            "problem": str(loads[-1].error) if failed else "",
            "loading": bool(loads) and not loads[-1].done.is_set(),
            "base": self.studio.fingerprint,
            "library": library_version(self.studio),
            "trainings": self.trainings.version(),
        }

    def load(self, visitor: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Change the base; asks first where others are making pictures."""
        others = {job.owner for job in self.studio.line.active() if job.owner not in (visitor,) and job.owner.id}
        if others and not data.get("sure"):
            count = "Another visitor is" if len(others) == 1 else f"{len(others)} other visitors are"
            return {"confirm": f"{count} making pictures, and would lose the concepts of this base."}
        self.studio.load(visitor, str(data.get("base") or ""))
        return {}


def name_of(base: str) -> str:
    """The last part of a base's name: a path of the server is nobody else's business."""
    return base.rstrip("/").rpartition("/")[2]


def library_version(studio: Studio) -> str:
    """Differs as soon as a concept came, went or changed."""
    found = []
    library = studio.settings.library
    for path in sorted([*library.glob("[!.]*/concept.safetensors"), *library.glob(".loras/*.json")]):
        try:
            found.append(f"{path.parent.name}/{path.name}:{path.stat().st_mtime_ns}")
        except OSError:
            continue
    return str(hash(tuple(found)))
