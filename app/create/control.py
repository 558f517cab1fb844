"""Control pictures: what a ControlNet reads, as forms, drafts and requests hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import NotRequired, TypedDict

from spectral_fusion.base.asked import ControlAsked
from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from PIL import Image


class ControlForm(TypedDict):
    """A picture that a ControlNet reads, by the name that it is kept under, and the ControlNet.

    model: a folder in a root, or an id of the hub. scale: how strongly it guides. start, end: in which part of the
    steps, from 0 to 1.
    """

    picture: str
    model: NotRequired[str]
    scale: NotRequired[float]
    start: NotRequired[float]
    end: NotRequired[float]


class ControlDraft(NamedTuple):
    """A control picture, by its digest as `Starts` keeps it."""

    picture: str
    model: str
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0

    @classmethod
    def of_form(cls, given: ControlForm | None) -> ControlDraft | None:
        """Of the form; None where there is no control picture."""
        if not given:
            return None
        numbers = (given.get("scale", 1.0), given.get("start", 0.0), given.get("end", 1.0))
        return cls(given["picture"], given.get("model", ""), *numbers)

    @classmethod
    def of_settings(cls, settings: Mapping[str, str]) -> ControlDraft | None:
        """Of a picture that says it was made with one. Raises InputError where the numbers cannot be read."""
        from spectral_fusion.generation.config import control_numbers

        name = settings.get("Control image", "")
        return cls(name, settings.get("ControlNet", ""), *control_numbers(settings)) if name else None

    def asked(self, find: Callable[[str, str], Image.Image]) -> ControlAsked:
        """With the picture found. Raises InputError: it is not there any more, or a value that cannot be used."""
        from spectral_fusion.base.control import check_control

        if not self.model.strip():
            raise InputError("the control picture has no ControlNet to read it; name a folder or a hub id")
        numbers = (float(self.scale), float(self.start), float(self.end))
        check_control(*numbers)
        return ControlAsked(self.model.strip(), find(self.picture, "the control picture"), *numbers)
