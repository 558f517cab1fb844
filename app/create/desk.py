"""What Create asks of the server: everything its script needs, as JSON."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectral_fusion.base.default import COMPOSITE, DETAIL
from spectral_fusion.errors import InputError
from spectral_fusion_app.create.draft import Draft, picture_draft
from spectral_fusion_app.create.drawing import Progress
from spectral_fusion_app.create.finish import finishing
from spectral_fusion_app.create.form import check_bounds, check_form, from_draft, to_draft
from spectral_fusion_app.create.grid import OF_CONCEPT, SETTINGS
from spectral_fusion_app.create.wording import is_lora
from spectral_fusion_app.engine import samplers
from spectral_fusion_app.errors import told_of
from spectral_fusion_app.jobs import Job
from spectral_fusion_app.library.shelf import Shelf
from spectral_fusion_app.library.shelf_html import icon
from spectral_fusion_app.messages import field_of
from spectral_fusion_app.paths import inside
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.visitors import Visitor
from spectral_fusion_app.web import Answer, picture_url

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 24
MOST_PLACES = 4  # subjects side by side for whom the base has places
WELCOME = (
    ("eve", "kit"),
    ("rex", "tom"),
)  # of the shipped concepts: who stand in the first picture, the first that are there


class Desk:
    """The answers; each gets the visitor and what the script sent."""

    def __init__(self, studio: Studio, uploads: Path) -> None:
        """uploads: where Gradio keeps what browsers send."""
        self.studio, self.uploads = studio, uploads

    def answers(self) -> dict[str, Answer]:
        """By the names that the script calls."""
        return {
            "desk": self.desk,
            "jobs": self.jobs,
            "create": self.create,
            "begin": self.begin,
            "finish": self.finish,
            "cancel": self.cancel,
            "move": self.move,
            "picture": self.picture,
            "restore": self.restore,
            "remove": self.remove,
            "unremove": self.unremove,
            "star": self.star,
            "pictures": self.pictures,
        }

    def desk(self, _: Visitor, __: Any) -> dict[str, Any]:
        """What the page shows before anything is pressed."""
        limits, (width, height) = self.studio.settings.limits, self.studio.size
        bounds = ("steps", "edge", "pictures", "regions", "prompt")
        ready = self.studio.state.kind == "ready"
        return {
            "base": self.studio.fingerprint,
            "concepts": self._concepts(),
            "samplers": samplers() if ready else [Draft.sampler],
            "grid": list(SETTINGS),
            "of_concept": OF_CONCEPT,
            "defaults": from_draft(Draft("", width=width, height=height), []),
            "limits": {name: getattr(limits, name) for name in bounds},
            "welcome": self._welcome(),
            "places": {str(count): self.studio.places(count) for count in range(2, MOST_PLACES + 1)} if ready else {},
            "redraw": DETAIL,  # as evaluations draw several together
            "composite": COMPOSITE,
            "control": {"possible": self.studio.takes_control, "models": self.studio.models.controlnets()},
        }

    def jobs(self, visitor: Visitor, seen: dict[str, str] | None) -> dict[str, Any]:
        """This visitor's jobs, how many of others wait, and the newest picture of all."""
        line, seen = self.studio.line, seen or {}
        own = line.jobs(visitor)
        newest = self.studio.history.newest(1)
        return {
            "jobs": [self._job(job, str(seen.get(job.id, ""))) for job in own],
            "others": sum(job.owner != visitor and job.owner.kind != "server" for job in line.active()),
            "newest": newest[0].name if newest else "",
            "base": self.studio.fingerprint,
        }

    def create(self, visitor: Visitor, data: Any) -> dict[str, Any]:
        """Put a form in line."""
        return self._line(visitor, data)

    def _line(self, visitor: Visitor, data: Any, what: str = "") -> dict[str, Any]:
        """`what`: is done to a finished picture."""
        form = check_form(data)
        check_bounds(form, self.studio.settings.limits)
        self.studio.check_loaded()
        concepts = self.studio.drawable()
        draft = to_draft(form, concepts)
        request = draft.request(concepts, self.studio.triggers(), self.studio.starts.image, self.studio.settings.limits)
        label = f"{what}: {request.config.prompt}" if what else request.config.prompt
        job = self.studio.generate(visitor, request, label, dict(form))
        return {"id": job.id, "seed": request.config.seed, "notes": self.studio.notes(request.config)}

    def begin(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Keep a picture of the history, or one that was sent, for others to begin from, or to be controlled by."""
        starts, name = self.studio.starts, data.get("name")
        file = self.studio.history.find(str(name)) if name else inside([self.uploads], str(data["path"]))
        return self._start({"picture": starts.keep(file)})

    def finish(self, visitor: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Refine or enlarge a finished picture, as it is."""
        path = self.studio.history.find(str(data["name"]))
        start = self.studio.starts.keep(path)
        size = self.studio.history.size(path)
        return self._line(visitor, finishing(self._form(path), data, start, size), str(data["how"]).capitalize())

    def cancel(self, visitor: Visitor, id: str | None) -> int:
        """Cancel one job of this visitor, or all."""
        return self.studio.cancel(visitor, id or None)

    def move(self, visitor: Visitor, data: dict[str, Any]) -> None:
        """Let a waiting job change places with the one before or after it."""
        self.studio.line.move(visitor, str(data["id"]), 1 if int(data["places"]) > 0 else -1)

    def picture(self, _: Visitor, name: str) -> dict[str, Any]:
        """How a picture was made: what it says of itself, and the form that makes it again."""
        from spectral_fusion.picture import read_parameters

        path = self.studio.history.find(str(name))
        parameters = read_parameters(path)
        return {
            **self._file(path),
            "prompt": parameters.prompt,
            "negative": parameters.negative_prompt,
            "settings": dict(parameters.settings),
            "form": self._form(path),
        }

    def restore(self, _: Visitor, path: str) -> dict[str, Any]:
        """The form of a picture that was dropped."""
        return {"form": self._form(inside([self.uploads], path))}

    def remove(self, _: Visitor, name: str) -> str:
        """Put a picture into the bin."""
        self.studio.history.remove(str(name))
        return str(name)

    def unremove(self, _: Visitor, name: str) -> dict[str, Any]:
        """Take it out again."""
        return self._file(self.studio.history.unremove(str(name)))

    def star(self, _: Visitor, data: dict[str, Any]) -> None:
        """Mark a picture, or no longer."""
        self.studio.history.star(str(data["name"]), bool(data["on"]))

    def pictures(self, _: Visitor, data: dict[str, Any] | None) -> dict[str, Any]:
        """Pictures of the history, the newest first."""
        data = data or {}
        history, skip = self.studio.history, max(0, int(data.get("skip", 0)))
        starred = history.starred()
        paths = [path for path in history.newest(10**9) if not data.get("starred") or path.name in starred]
        return {"pictures": [self._file(path) for path in paths[skip : skip + SHOWN]], "count": len(paths)}

    def _concepts(self) -> list[dict[str, Any]]:
        shelf = Shelf(self.studio.settings.library)
        loras = [
            {"name": info.name, "trigger": info.trigger, "class": "", "icon": "", "lora": True}
            for info in self.studio.drawable()
            if is_lora(info)
        ]
        cards = [
            {
                "name": card.info.name,
                "trigger": card.info.trigger,
                "class": card.info.class_word,
                "icon": icon(card),
            }
            for card in shelf.cards_of(self.studio.concepts())
        ]
        return [*cards, *loras]

    def _welcome(self) -> dict[str, Any] | None:
        """The form of a first picture of two; None once there are pictures, or where those two are missing."""
        known = {info.name: info for info in self.studio.concepts()}
        pair = next((names for names in WELCOME if known.keys() >= set(names)), None)
        if len(self.studio.history) or pair is None:
            return None
        one, two = (f"a {known[name].trigger} {known[name].class_word}" for name in pair)
        places = zip(pair, self.studio.places(len(pair)), strict=True)
        return {
            "prompt": f"{one} and {two} on grass",
            "regions": [{"concept": name, "prompt": "", "box": box} for name, box in places],
            "composite": COMPOSITE,
            "names": list(pair),
        }

    def _form(self, path: Path) -> dict[str, Any]:
        draft = picture_draft(path)
        width, height = self.studio.size
        concepts = self.studio.drawable()
        form, known = from_draft(draft, concepts), {info.name for info in concepts}
        missing = sorted(draft.weights.keys() - known)
        form |= {"width": draft.width or width, "height": draft.height or height}
        form |= {"missing": missing, "left_out": list(draft.left_out)}
        for name, what, lost in (
            ("start", "the start picture", "lost"),
            ("control", "the control picture", "lost_control"),
        ):
            try:
                form[name] = form[name] and self._start(form[name], what)
            except InputError as error:
                form |= {name: None, lost: str(error)}
        return form

    def _start(self, start: dict[str, Any], what: str = "the start picture") -> dict[str, Any]:
        path = self.studio.starts.find(start["picture"], what)
        width, height = self.studio.history.size(path)
        return {**start, "url": picture_url(path, self.studio.settings), "width": width, "height": height}

    def _file(self, path: Path) -> dict[str, Any]:
        width, height = self.studio.history.size(path)
        starred, url = path.name in self.studio.history.starred(), picture_url(path, self.studio.settings)
        return {"name": path.name, "url": url, "width": width, "height": height, "starred": starred}

    def _job(self, job: Job, seen: str) -> dict[str, Any]:
        told: dict[str, Any] = {"id": job.id, "state": job.state, "label": job.label}
        told["before"] = self.studio.line.before(job) if job.state == "waiting" else 0
        told["pictures"] = [path.name for path in job.result] if isinstance(job.result, list) else []
        if job.error is not None:
            told["error"] = told_of(job.error)
            told["field"] = field_of(told["error"])
        if isinstance(job.update, Progress):
            update = job.update
            told |= {"step": update.step, "steps": update.steps, "picture": update.picture, "of": update.pictures}
            told |= {"fraction": update.fraction, "pass": update.pass_, "passes": update.passes}
            told["finished"] = [path.name for path in update.finished]
            passed = time.monotonic() - job.started
            told["left"] = passed / update.fraction - passed if update.fraction else None
            if update.preview is not None and not job.done.is_set():
                told["preview_id"] = str(id(update.preview))
                if told["preview_id"] != seen:
                    told["preview"] = data_url(update.preview)
        return told


def data_url(image: Image.Image) -> str:
    """A picture in the page itself: previews are many, and files of them would pile up."""
    data = io.BytesIO()
    image.convert("RGB").save(data, "PNG" if max(image.size) <= 128 else "JPEG", quality=85)
    kind = "png" if max(image.size) <= 128 else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
