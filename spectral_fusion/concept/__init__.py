"""What is on disk: concepts, the library of them, and what they can be exported to."""

from typing import TYPE_CHECKING, Any

from spectral_fusion.concept.library import Library
from spectral_fusion.concept.metadata import ConceptInfo
from spectral_fusion.concept.read import read_info
from spectral_fusion.names import check_name

if TYPE_CHECKING:
    from spectral_fusion.concept.embedding import export_embedding
    from spectral_fusion.concept.file import Concept, LayerTensors
    from spectral_fusion.concept.lora import export_lora

__all__ = [
    "Concept",
    "ConceptInfo",
    "LayerTensors",
    "Library",
    "check_name",
    "export_embedding",
    "export_lora",
    "read_info",
]

_HOMES = {"Concept": "file", "LayerTensors": "file", "export_embedding": "embedding", "export_lora": "lora"}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: listing a library does without."""
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"spectral_fusion.concept.{_HOMES[name]}"), name)
