"""What is asked of a base before it is there, apart from all that loads one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

    from spectral_fusion.base.control import Control
    from spectral_fusion.base.interface import Base


class ControlAsked(NamedTuple):
    """A control picture that is read, and the ControlNet that is yet to be loaded, as its user named it."""

    model: str
    image: Image.Image
    scale: float
    start: float
    end: float

    def opened(self, base: Base) -> Control:
        """With the ControlNet loaded for a base. Raises InputError where it does not fit."""
        from spectral_fusion.base.control import Control
        from spectral_fusion.base.load_control import open_controlnet

        return Control(open_controlnet(self.model, base), self.image, self.scale, self.start, self.end)
