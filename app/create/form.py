"""What the page's form holds, as JSON, and the draft that it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from spectral_fusion.errors import InputError
from spectral_fusion_app.create.control import ControlDraft, ControlForm
from spectral_fusion_app.create.draft import Box, Draft, RegionDraft, StartDraft
from spectral_fusion_app.create.wording import Known, region_phrase
from spectral_fusion_app.engine import checked_mask, found_box
from spectral_fusion_app.settings import Limits


class RegionForm(TypedDict):
    """A part of the picture: its concept, or a prompt of its own, or both.

    box: null for a place that the model finds; mask: painted, or found by the model, and used instead of the box.
    """

    box: Box | None
    mask: NotRequired[str | None]
    concept: NotRequired[str]
    prompt: NotRequired[str]


class StartForm(TypedDict):
    """A picture to begin from, by the name that it is kept under; how much of it, and where, is drawn anew."""

    picture: str
    strength: NotRequired[float]
    mask: NotRequired[str | None]


class AxisForm(TypedDict):
    """One setting of a grid."""

    setting: str
    values: str


class Form(TypedDict, total=False):
    """All fields of Create. `concepts`: weights of the cards; `pinned`: cards that no prompt names."""

    prompt: str
    negative: str
    sampler: str
    steps: int
    guidance: float
    width: int
    height: int
    pictures: int
    seed: str
    concepts: dict[str, float]
    pinned: list[str]
    spans: dict[str, tuple[float, float]]
    regions: list[RegionForm]
    axes: list[AxisForm]
    start: StartForm | None
    control: ControlForm | None
    upscale: float
    upscale_strength: float
    detail: float
    composite: float


CHECK = TypeAdapter(Form)
KINDS = {"int": "give a whole number", "float": "give a number", "string": "write text"}  # pydantic's kinds of errors


def check_form(data: Any) -> Form:
    """The form that a page sent. Raises InputError, which begins with the field's name."""
    try:
        return CHECK.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "the form"
        got = repr(first["input"])[:40]
        wanted = next((words for kind, words in KINDS.items() if first["type"].startswith(kind)), first["msg"].lower())
        raise InputError(f"{field}: {got} cannot be used here; {wanted}") from error


def check_bounds(form: Form, limits: Limits) -> None:
    """What the page allows of each number; raises InputError, which begins with the field's name."""
    for name, least, most in (
        ("steps", 1, limits.steps),
        ("pictures", 1, limits.pictures),
        ("width", 8, limits.edge),
        ("height", 8, limits.edge),
    ):
        value = dict(form).get(name)
        if isinstance(value, int) and not least <= value <= most:
            raise InputError(f"{name}: give {least} to {most}, not {value}")


def to_draft(form: Form, concepts: Sequence[Known]) -> Draft:
    """The draft of a form. Raises InputError: a region has neither a concept nor a prompt."""
    known = {info.name: info for info in concepts}
    prompt = form.get("prompt", "")
    regions = []
    for number, region in enumerate(form.get("regions", []), start=1):
        text, name = region.get("prompt", "").strip(), region.get("concept", "")
        if not text and name not in known:
            raise InputError(f"region {number} has no concept; choose one, write what it shows, or remove it")
        if name and name not in known:
            name = ""
        phrase = text or region_phrase(prompt, known[name], list(concepts))
        regions.append(RegionDraft(phrase, region["box"], name, _mask(region, f"region {number}")))
    return Draft(
        prompt,
        form.get("negative", ""),
        weights=form.get("concepts", {}),
        pinned=tuple(name for name in form.get("pinned", []) if name in known),
        regions=tuple(regions),
        spans=form.get("spans", {}),
        sampler=form.get("sampler", Draft.sampler),
        steps=form.get("steps", Draft.steps),
        guidance_scale=form.get("guidance", Draft.guidance_scale),
        width=form.get("width"),
        height=form.get("height"),
        seed=form.get("seed", ""),
        num_images=form.get("pictures", 1),
        axes=tuple((axis["setting"], axis["values"]) for axis in form.get("axes", []) if axis["values"].strip()),
        start=to_start(form.get("start")),
        control=ControlDraft.of_form(form.get("control")),
        upscale=form.get("upscale", Draft.upscale),
        upscale_strength=form.get("upscale_strength", Draft.upscale_strength),
        detail=form.get("detail", Draft.detail),
        composite=form.get("composite", Draft.composite),
    )


def to_start(given: StartForm | None) -> StartDraft | None:
    """Of the form. Raises InputError: its mask cannot be used."""
    if not given:
        return None
    strength = given.get("strength", 0.6)
    return StartDraft(given["picture"], strength, _mask(given, "the start picture"))


def _mask(given: RegionForm | StartForm, what: str) -> str | None:
    text = given.get("mask")
    return checked_mask(text, what) if text else None


def from_draft(draft: Draft, concepts: Iterable[Known]) -> dict[str, Any]:
    """The form of a draft."""
    known = {info.name: info for info in concepts}

    def region(given: RegionDraft) -> dict[str, Any]:
        name = given.concept if given.concept in known else ""
        own = name and given.prompt == region_phrase(draft.prompt, known[name], list(known.values()))
        box = found_box(given.mask) if given.mask else given.box
        return {
            "prompt": "" if own else given.prompt,
            "box": list(box) if box else None,
            "concept": name,
            "mask": given.mask,
        }

    return {
        "prompt": draft.prompt,
        "negative": draft.negative_prompt,
        "sampler": draft.sampler,
        "steps": draft.steps,
        "guidance": draft.guidance_scale,
        "width": draft.width,
        "height": draft.height,
        "pictures": draft.num_images,
        "seed": draft.seed,
        "concepts": dict(draft.weights),
        "pinned": list(draft.pinned),
        "spans": {name: list(span) for name, span in draft.spans.items()},
        "regions": [region(given) for given in draft.regions],
        "axes": [{"setting": setting, "values": values} for setting, values in draft.axes],
        "start": draft.start._asdict() if draft.start else None,
        "control": draft.control._asdict() if draft.control else None,
        "upscale": draft.upscale,
        "upscale_strength": draft.upscale_strength,
        "detail": draft.detail,
        "composite": draft.composite,
    }
