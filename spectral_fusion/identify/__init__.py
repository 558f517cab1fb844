"""What a model file is, from its header alone: family, prediction type, kind of adapter, quantisation."""

from spectral_fusion.identify.header import Header, read_header
from spectral_fusion.identify.identity import Identity, Prediction, identify

__all__ = ["Header", "Identity", "Prediction", "identify", "read_header"]
