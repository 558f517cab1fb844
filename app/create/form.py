"""What the page's form holds, as JSON, and the draft that it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from spectral_fusion.errors import InputError
from spectral_fusion_app.create.draft import Box, Draft, region_phrase

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo


class RegionForm(TypedDict):
    """A part of the picture: its concept, or a prompt of its own, or both."""

    box: Box
    concept: NotRequired[str]
    prompt: NotRequired[str]


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
    regions: list[RegionForm]
    axes: list[AxisForm]


CHECK = TypeAdapter(Form)


def check_form(data: Any) -> Form:
    """The form that a page sent. Raises InputError, which begins with the field's name."""
    try:
        return CHECK.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "the form"
        got = repr(first["input"])[:40]
        raise InputError(f"{field}: {got} cannot be used here; {first['msg'].lower()}") from error


def to_draft(form: Form, concepts: Sequence[ConceptInfo]) -> Draft:
    """The draft of a form. Raises InputError: a region has neither a concept nor a prompt."""
    known = {info.name: info for info in concepts}
    prompt = form.get("prompt", "")
    regions = []
    for number, region in enumerate(form.get("regions", []), start=1):
        text, name = region.get("prompt", "").strip(), region.get("concept", "")
        if not text and name not in known:
            raise InputError(f"region {number} has no concept; choose one, write what it shows, or remove it")
        regions.append((text or region_phrase(prompt, known[name], list(concepts)), region["box"]))
    return Draft(
        prompt,
        form.get("negative", ""),
        weights=form.get("concepts", {}),
        pinned=tuple(name for name in form.get("pinned", []) if name in known),
        regions=tuple(regions),
        sampler=form.get("sampler", Draft.sampler),
        steps=form.get("steps", Draft.steps),
        guidance_scale=form.get("guidance", Draft.guidance_scale),
        width=form.get("width"),
        height=form.get("height"),
        seed=form.get("seed", ""),
        num_images=form.get("pictures", 1),
        axes=tuple((axis["setting"], axis["values"]) for axis in form.get("axes", []) if axis["values"].strip()),
    )


def from_draft(draft: Draft, concepts: Iterable[ConceptInfo]) -> dict[str, Any]:
    """The form of a draft; a region that names one concept's trigger is that concept's."""
    concepts = list(concepts)

    def region(text: str, box: Box) -> dict[str, Any]:
        named = [info.name for info in concepts if info.trigger.lower() in text.lower()]
        return {"prompt": text, "box": list(box), "concept": named[0] if len(named) == 1 else ""}

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
        "regions": [region(text, box) for text, box in draft.regions],
        "axes": [{"setting": setting, "values": values} for setting, values in draft.axes],
    }
