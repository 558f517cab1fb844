"""What Train asks of the server: everything its script needs, as JSON."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from spectral_fusion.errors import InputError
from spectral_fusion_app.paths import inside
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.train.begin import ADVANCED, Begin, Given, described, described_setting, parse_setting
from spectral_fusion_app.train.curve import duration, likeness_svg, loss_svg, state_words
from spectral_fusion_app.train.photos import Card
from spectral_fusion_app.train.progress import ACTIVE
from spectral_fusion_app.train.trainings import Training, Trainings
from spectral_fusion_app.visitors import Visitor
from spectral_fusion_app.web import Answer

FEWEST, BEST = 3, (5, 20)  # photos: below, a concept learns their background as well
CLASSES = (
    "dog",
    "cat",
    "person",
    "woman",
    "man",
    "child",
    "car",
    "robot",
    "toy",
    "bird",
    "fish",
    "bag",
    "shoe",
    "chair",
)
GIVES = {
    "quick": "A first look: the subject is there, its finest detail may not be.",
    "balanced": "Good likeness for most subjects.",
    "careful": "The best likeness, for subjects with fine detail.",
}
SAMPLE_EDGE = 1024  # px


class TrainDesk:
    """The answers; each gets the visitor and what the script sent."""

    def __init__(self, studio: Studio, begin: Begin, trainings: Trainings, uploads: Path) -> None:
        self.studio, self.begin, self.trainings, self.uploads = studio, begin, trainings, uploads

    def answers(self) -> dict[str, Answer]:
        """By the names that the script calls."""
        return {
            "desk": self.desk,
            "photos": self.photos,
            "train": self.train,
            "trainings": self.all,
            "training": self.training,
            "cancel": self.cancel,
            "resume": self.resume,
            "remove": self.remove,
        }

    def desk(self, _: Visitor, __: Any) -> dict[str, Any]:
        """Presets with their time, classes, and the settings for those who want them."""
        own = {info.class_word for info in self.studio.concepts()}
        return {
            "classes": sorted(own | set(CLASSES)),
            "presets": self._presets(),
            "settings": [described_setting(name, value) for name, value in ADVANCED.items()],
            "ready": self.studio.state.kind == "ready",
            "limit": self.studio.settings.limits.uploads,
        }

    def photos(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Look at photos: a thumbnail each, what is wrong with one, advice on their number."""
        with self.begin.photos(self._files(data.get("files")), str(data.get("folder") or "")) as photos:
            given = str(data.get("class") or "").strip()
            cards, warnings = photos.cards(max(self.studio.size), given)
            word = photos.class_word(given)
        told = {"warnings": warnings, "advice": advice(len(cards)), "class": word}
        return {"cards": [card_json(card) for card in cards], **told}

    def train(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """Start a training, or put it in line."""
        advanced = data.get("settings") or {}
        given = Given(
            str(data.get("name") or ""),
            str(data.get("class") or ""),
            str(data.get("preset") or "balanced"),
            self._files(data.get("files")),
            str(data.get("folder") or ""),
            {str(key): str(text) for key, text in (data.get("captions") or {}).items()},
            {name: parse_setting(name, value) for name, value in advanced.items() if name in ADVANCED},
            bool(data.get("replace")),
        )
        return described(self.begin.start(given))

    def all(self, _: Visitor, __: Any) -> dict[str, Any]:
        """All trainings in short, the newest first."""
        return {"trainings": [self._short(training) for training in self.trainings.list()]}

    def training(self, _: Visitor, data: dict[str, Any]) -> dict[str, Any]:
        """One training whole; `grids`: how many sample grids the page has already."""
        training = self.trainings.find(str(data["id"]))
        state, grids = training.state(), training.grids()
        seen = int(data.get("grids") or 0)
        done = state.kind == "finished"
        likeness = {point.step: point.likeness for point in state.points}
        told = [(path, step_of(path)) for path in grids[seen:]]
        return {
            **self._short(training),
            "curve": loss_svg(state.points),
            "count": len(grids),
            "likeness": likeness_svg(state.points),
            "grids": [
                {"step": step, "url": picture_data(path, SAMPLE_EDGE), "likeness": likeness.get(step)}
                for path, step in told
            ],
            "photos": self._photos(training) if not data.get("photos") else None,
            "class": next((info.class_word for info in self.studio.concepts() if info.name == training.name), ""),
            "can_create": done and any(info.name == training.name for info in self.studio.concepts()),
        }

    def cancel(self, _: Visitor, id: str) -> dict[str, Any]:
        """Stop a training after its step."""
        training = self.trainings.find(str(id))
        training.cancel()
        return self._short(training)

    def resume(self, _: Visitor, id: str) -> dict[str, Any]:
        """Go on with one."""
        return self._short(self.trainings.resume(str(id)))

    def remove(self, _: Visitor, id: str) -> str:
        """Take one that is over from the list."""
        self.trainings.remove(str(id))
        return str(id)

    def _short(self, training: Training) -> dict[str, Any]:
        state = training.state()
        return {
            **described(training),
            "began": f"{training.began:%d %b %H:%M}",
            "active": state.kind in ACTIVE,
            "resumable": training.resumable,
            "words": state_words(state, training.process.seconds),
            "loss": None,
        }

    def _files(self, paths: Any) -> list[str]:
        return [str(inside([self.uploads], str(path))) for path in paths or []]

    def _photos(self, training: Training) -> list[str]:
        from spectral_fusion_app.train.photos import is_picture

        found = (
            sorted(path for path in training.images.rglob("*") if is_picture(path)) if training.images.is_dir() else []
        )
        return [url for path in found[:12] if (url := picture_data(path, 160))]

    def _presets(self) -> list[dict[str, Any]]:
        from spectral_fusion.base.presets import STEPS

        pace, start = self._pace()
        found = []
        for name in STEPS:
            steps = self.studio.steps(name)
            time_ = f"about {duration(start + pace * steps)} here" if pace else "time known after the first training"
            found.append({"name": name, "steps": steps, "time": time_, "gives": GIVES[name]})
        return found

    def _pace(self) -> tuple[float, float]:
        """Seconds of a step and before the first one, from the newest finished training here; zeros before there is."""
        for training in self.trainings.list():
            points = training.state().points
            if len(points) > 1:
                begun = training.began.timestamp()
                pace = (points[-1].time - points[0].time) / (len(points) - 1)
                return max(pace, 0.0), min(max(points[0].time - begun, 0.0), 900.0)
        return 0.0, 0.0


def advice(count: int) -> str:
    """On the number of photos."""
    low, high = BEST
    if count < FEWEST:
        photos = "1 photo" if count == 1 else f"{count} photos"
        return f"{photos}: too few to tell the subject from its background. {low} to {high} are best."
    if count < low:
        return f"{count} photos: it works, {low} to {high} are better."
    if count > high:
        return f"{count} photos: more than {high} rarely help; choose sharp ones that differ."
    return f"{count} photos: a good number."


def card_json(card: Card) -> dict[str, Any]:
    """A photo for the script."""
    data = io.BytesIO()
    card.thumbnail.convert("RGB").save(data, "WEBP", quality=85)
    url = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    return {"key": card.key, "name": card.name, "url": url, "caption": card.caption, "warnings": list(card.warnings)}


def picture_data(path: Path, edge: int) -> str:
    """A picture in the page itself, no larger than this; empty where it cannot be read."""
    from spectral_fusion.reading import load_picture

    try:
        image = load_picture(path, smallest=1)
    except (OSError, InputError):
        return ""
    image.thumbnail((edge, edge))
    data = io.BytesIO()
    image.convert("RGB").save(data, "WEBP", quality=90)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def step_of(path: Path) -> int:
    """`step-000050.png` is of step 50."""
    return int(path.stem.rpartition("-")[2])
