"""The layers of a model that concepts adapt, and the fingerprint of a whole base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from spectral_fusion.concept.fingerprint import sign_hash, spread_samples

BASE_SAMPLES = 2**12


def base_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Linear and convolution layers under the names they have without adapters, the layers of adapters left out."""
    adapters: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(adapters):
            continue
        if isinstance(module, BaseTunerLayer):
            adapters += (f"{name}.",)
            module = module.get_base_layer()
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            yield name, module


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type of its first weight; diffusers' own `dtype` walks through all modules, which a denoising step feels.

    Weights in 4 bits count as whole numbers and are passed over.
    """
    return next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())


def fingerprint_of(models: Iterable[nn.Module]) -> str:
    """Fingerprint of a base: a hash of signs of its weights, without token embeddings and whatever adapters are on."""
    weights = [layer.weight for model in models for _, layer in base_layers(model)]
    return sign_hash([(tuple(weight.shape), spread_samples(weight, BASE_SAMPLES)) for weight in weights])


def plain_name(path: str) -> str:
    """The name of a layer without the wrapping of adapters round it."""
    return path.replace(".base_layer", "")
