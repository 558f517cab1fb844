"""What Lab asks of the server: everything its script needs, as JSON."""

from __future__ import annotations

from typing import Any

from spectral_fusion.errors import InputError
from spectral_fusion_app.exports import Exports, links
from spectral_fusion_app.lab.evaluations import METHODS, Evaluation, Evaluator
from spectral_fusion_app.lab.fusing import Fusing
from spectral_fusion_app.lab.lab_html import check_html
from spectral_fusion_app.library.shelf import Shelf
from spectral_fusion_app.library.shelf_html import icon
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.visitors import Visitor
from spectral_fusion_app.web import Answer

WORDS = {
    "running": "drawing",
    "stopping": "stopping",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
}


METHOD_WORDS = {
    "spectral-sum": "added up, as in Create",
    "spectral-mean": "averaged",
    "lora-sum": "plain LoRAs, trained for this, added up",
    "lora-mean": "plain LoRAs, trained for this, averaged",
}


class LabDesk:
    """The answers; each gets the visitor and what the script sent."""

    def __init__(self, studio: Studio, fusing: Fusing, evaluator: Evaluator) -> None:
        self.studio, self.fusing, self.evaluator = studio, fusing, evaluator
        self.exports = Exports(studio.settings.exports)

    def answers(self) -> dict[str, Answer]:
        """By the names that the script calls."""
        return {
            "lab": self.lab,
            "check": self.check,
            "save": self.save,
            "saved": self.saved,
            "lora": self.lora,
            "evaluate": self.evaluate,
            "stop": self.stop,
            "report": self.report,
        }

    def lab(self, _: Visitor, __: Any) -> dict[str, Any]:
        """The concepts that can be chosen, the ways of fusing, and the evaluations."""
        cards = Shelf(self.studio.settings.library).cards_of(self.studio.concepts())
        return {
            "concepts": [card.info.name for card in cards],
            "icons": {card.info.name: icon(card) for card in cards},
            "methods": [{"name": name, "words": METHOD_WORDS[name]} for name in METHODS],
            "evaluations": [self._short(one) for one in self.evaluator.evaluations.list()],
        }

    def check(self, _: Visitor, names: list[str]) -> dict[str, Any]:
        """Whether concepts go together."""
        check = self.fusing.check([str(name) for name in names])
        return {"html": check_html(check), "disjoint": check.disjoint}

    def save(self, visitor: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Begin to write a diffusers folder."""
        overlap, replace = bool(data.get("overlap")), bool(data.get("replace"))
        weights = weights_of(data)
        job = self.fusing.save_folder(visitor, weights, str(data["folder"]), overlap=overlap, replace=replace)
        return {"id": job.id}

    def saved(self, visitor: Visitor, id: str) -> dict[str, Any]:
        """How that went."""
        job = next((job for job in self.studio.line.jobs(visitor) if job.id == id), None)
        if job is None:
            raise InputError("this is not known any more; look into the folder of fused models")
        if job.error is not None:
            known = isinstance(job.error, InputError)
            raise InputError(str(job.error) if known else "saving failed; the server's log says more")
        return {
            "state": job.state,
            "path": f"fused/{job.result.name}" if job.result else "",
            "before": self.studio.line.before(job),
        }

    def lora(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Write one LoRA and the embeddings."""
        folder = self.exports.folder()
        files = self.fusing.save_lora(weights_of(data), data["to"], folder, overlap=bool(data.get("overlap")))
        return {"files": links(files, self.studio.settings)}

    def evaluate(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Start an evaluation."""
        names = [str(name) for name in data["names"]]
        methods = [str(method) for method in data.get("methods") or []]
        seeds, steps = number(data, "seeds"), number(data, "steps")
        return self._short(self.evaluator.start(names, methods, seeds, steps))

    def stop(self, _: Visitor, id: str) -> dict[str, Any]:
        """Stop one; what it has drawn is lost."""
        evaluation = self.evaluator.evaluations.find(str(id))
        evaluation.process.stop()
        return self._short(evaluation)

    def report(self, _: Visitor, id: str) -> dict[str, Any]:
        """A report, whole; links for it and its figures."""
        evaluation = self.evaluator.evaluations.find(str(id))
        if evaluation.report is None:
            return {"html": ""}
        files = links([evaluation.report], self.studio.settings)
        return {"html": evaluation.report.read_text(encoding="utf-8"), "files": files}

    def _short(self, evaluation: Evaluation) -> dict[str, Any]:
        state = evaluation.state()
        active = state.kind in ("running", "stopping")
        stage = f": {evaluation.stage()}" if state.kind == "running" else ""
        return {
            "id": evaluation.id,
            "title": " + ".join(evaluation.names),
            "began": evaluation.id[:13],
            "state": state.kind,
            "words": f"{WORDS[state.kind]}{stage}",
            "error": state.error,
            "active": active,
            "report": evaluation.report is not None,
        }


def weights_of(data: dict[str, Any]) -> dict[str, float]:
    """The weights that the page chose. Raises InputError."""
    try:
        return {str(name): float(weight) for name, weight in data["weights"].items()}
    except (TypeError, ValueError) as error:
        raise InputError("a weight is no number; give one such as 1 or 0.8") from error


def number(data: dict[str, Any], name: str) -> int:
    """A whole number. Raises InputError."""
    try:
        return int(data.get(name) or 0)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is no whole number; give one such as 1") from error
