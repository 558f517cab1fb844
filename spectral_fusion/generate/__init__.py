"""Generating: prompts, regions and concepts to pictures, with previews on the way."""

from spectral_fusion.generate.bound import Placeable
from spectral_fusion.generate.config import GenerateConfig
from spectral_fusion.generate.job import Picture, Step, generate

__all__ = ["GenerateConfig", "Picture", "Placeable", "Step", "generate"]
