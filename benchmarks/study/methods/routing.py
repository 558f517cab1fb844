"""Routing LoRAs: the closed form that `fuse(reduce="routed")` has for concepts, for adapters of another kind."""

from __future__ import annotations

from collections.abc import Sequence

from spectral_fusion.base.interface import Base
from spectral_fusion.base.routing import route
from spectral_fusion.concept.community import LoraFile
from study.methods.applied import Deltas
from study.training import Adapter


def routed_loras(base: Base, loras: Sequence[Adapter]) -> Deltas:
    """The joint delta of LoRAs that acts on each one's prompts as that one alone, as `fuse` makes it of concepts."""
    files = [
        LoraFile(
            lora.name,
            {name: lora.factors(name) for name in lora.layers},
            lora.trigger,
            {lora.trigger: lora.embeddings["text_encoder"]},
        )
        for lora in loras
    ]
    return dict(route(base, dict.fromkeys(files, 1.0)).deltas)
