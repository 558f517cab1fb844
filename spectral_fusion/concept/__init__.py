"""What is on disk: concepts, the library of them, and what they can be exported to."""

from spectral_fusion.concept.embedding import export_embedding
from spectral_fusion.concept.file import Concept, LayerTensors
from spectral_fusion.concept.library import Library
from spectral_fusion.concept.lora import export_lora
from spectral_fusion.concept.metadata import ConceptInfo
from spectral_fusion.concept.read import read_info
from spectral_fusion.names import check_name

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
