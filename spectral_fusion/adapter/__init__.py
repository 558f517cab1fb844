"""The PEFT tuner "spectral". Importing this package registers it with PEFT."""

from spectral_fusion.adapter.config import SpectralConfig
from spectral_fusion.adapter.layer import SpectralConv2d, SpectralLayer, SpectralLinear
from spectral_fusion.adapter.lora import as_lora, save_as_lora
from spectral_fusion.adapter.model import SpectralModel

__all__ = [
    "SpectralConfig",
    "SpectralConv2d",
    "SpectralLayer",
    "SpectralLinear",
    "SpectralModel",
    "as_lora",
    "save_as_lora",
]
