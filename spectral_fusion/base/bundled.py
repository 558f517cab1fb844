"""The bases that the package carries, and what they know of the worlds that they draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from spectral_fusion import toybox, toybox128, toybox_sd3
from spectral_fusion.base.default import NAMES
from spectral_fusion.base.regions import Box


@dataclass(frozen=True)
class Bundled:
    """A base in the package.

    Args:
        name: what `--base` calls it.
        weights: its diffusers folder; `scorers/` in it judges its pictures.
        latent_side: its latents are so wide and high.
        fingerprint: of its weights, by which a copy elsewhere is known too.
        t5_tokens: of a transformer whose T5 says nothing, how many tokens it is to say that in; as SD3's pipeline has
            them where not told otherwise.
    """

    name: str
    weights: Path
    latent_side: int
    fingerprint: str
    t5_tokens: int = 256

    def scorers(self) -> ModuleType:
        """The models that judge its pictures, loaded when they are first asked."""
        if self.name == "toybox":
            from spectral_fusion.toybox import scorers as first

            return first
        from spectral_fusion.toybox128 import scorers as second

        return second

    def places(self, count: int) -> list[Box]:
        """Where so many subjects stand side by side."""
        from spectral_fusion.toybox.layout import standing_boxes as first
        from spectral_fusion.toybox128.layout import standing_boxes as second

        return [Box(*box) for box in (first if self.name == "toybox" else second)(count)]


BUNDLED = {
    name: Bundled(name, package.WEIGHTS, package.LATENT_SIDE, package.FINGERPRINT)
    for name, package in zip(NAMES, (toybox, toybox128, toybox_sd3), strict=True)
}
BUNDLED["toybox-sd3"] = replace(BUNDLED["toybox-sd3"], t5_tokens=toybox_sd3.T5_TOKENS)


def known_by(side: int, fingerprint: Callable[[], str]) -> Bundled | None:
    """The bundled base whose latents have this side and whose weights have this fingerprint; None if there is none.

    Args:
        fingerprint: asked only where the side fits: reading a large base takes its time.
    """
    return next((b for b in BUNDLED.values() if b.latent_side == side and b.fingerprint == fingerprint()), None)
