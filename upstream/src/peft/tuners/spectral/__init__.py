# Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0
from peft.utils import register_peft_method

from .config import SpectralConfig
from .layer import SpectralConv2d, SpectralLayer, SpectralLinear
from .model import SpectralModel

__all__ = ["SpectralConfig", "SpectralConv2d", "SpectralLayer", "SpectralLinear", "SpectralModel"]

register_peft_method(name="spectral", config_cls=SpectralConfig, model_cls=SpectralModel)
