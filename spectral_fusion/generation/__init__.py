"""Generating: prompts, regions and concepts to pictures, with previews on the way."""

from spectral_fusion.generation.bound import Placeable
from spectral_fusion.generation.config import GenerateConfig
from spectral_fusion.generation.job import Picture, Step, generate

__all__ = ["GenerateConfig", "Picture", "Placeable", "Step", "generate"]
