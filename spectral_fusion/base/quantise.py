"""Quantising a denoiser: its linear layers in 8 or 4 bits, by torchao and bitsandbytes, for training beside them.

int8: whole numbers with one scale a row, `|w - w'| <= max|row| / 254`. fp8: floats of 8 bits (E4M3, 3 bits of fraction)
with one scale a row, `|w - w'| <= |w| / 16` where they do not fall below its range. nf4: 16 levels for each 64 weights
in a row (Dettmers et al., 2023); the widest gap of the levels is 0.304, so `|w - w'| <= 0.152 max|block|`. The scales
are float32; they are not quantised in turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, get_args

from torch import Tensor, nn

from spectral_fusion.adapter.kinds import is_quantised
from spectral_fusion.base.attach import active_adapters, refuse_fused
from spectral_fusion.base.interface import Base, Quantised
from spectral_fusion.errors import InputError

Scheme = Literal["int8", "fp8", "nf4"]
LIBRARY = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}
BITS = {"int8": 8, "fp8": 8, "nf4": 4}
SMALLEST = 64  # inputs or outputs of a layer that is worth it, and whole blocks for nf4
# The first and last layers, and those of times and sizes, stay as they are: small, and much depends on them.
IN_BLOCK = re.compile(r"\.\d+\.(?!.*emb)")


def check_scheme(scheme: str) -> None:
    """Raises InputError where a scheme is unknown, or its library is not installed."""
    if scheme not in get_args(Scheme):
        raise InputError(f"quantize is int8, fp8 or nf4, not {scheme}")
    _library(scheme)


def quantise(base: Base, scheme: Scheme) -> Quantised:
    """Quantise the denoiser's linear layers where they are; adapters can be put beside them, nothing into them.

    There is no way back: open the base again for plain weights. Its fingerprints stay those of the plain ones.

    Raises:
        InputError: the library is missing, no layer is large enough, or the base carries adapters, fused concepts, or
            is quantised already.
    """
    refuse_fused(base)
    base.refuse_quantised("quantised again")
    if names := active_adapters(base.denoiser):
        raise InputError(f"adapters {', '.join(names)} are on this base; detach them before quantising it")
    library = _library(scheme)
    part = next(iter(base.parts))
    chosen = {f"{part}.{path}": layer for path, layer in base.denoiser.named_modules() if is_chosen(path, layer)}
    if not chosen:
        raise InputError(f"this denoiser has no linear layer of {SMALLEST} or more to quantise; leave out --quantize")
    before = Quantised(
        scheme, base.fingerprint, {name: base.layer_fingerprint(name, layer) for name, layer in chosen.items()}, {}
    )
    errors = {}
    for name, layer in chosen.items():
        plain = layer.weight.detach()
        quantised = _nf4(library, layer) if scheme == "nf4" else _by_torchao(library, layer, scheme)
        errors[name] = float((dequantised(quantised).float() - plain.float()).norm() / plain.float().norm())
        parent, _, child = name.removeprefix(f"{part}.").rpartition(".")
        setattr(base.denoiser.get_submodule(parent), child, quantised)
    base.quantised = Quantised(scheme, before.fingerprint, before.layers, errors)
    return base.quantised


def is_chosen(path: str, layer: nn.Module) -> bool:
    """Whether a layer of the denoiser is quantised: linear, large, and in one of its blocks."""
    if not isinstance(layer, nn.Linear) or not IN_BLOCK.search(path):
        return False
    return layer.in_features % SMALLEST == layer.out_features % SMALLEST == 0


def dequantised(layer: nn.Module) -> Tensor:
    """(out, in): the weight that a quantised layer multiplies with."""
    weight: Any = layer.weight
    if not is_quantised(layer):
        return weight.detach()
    if hasattr(weight, "quant_state"):
        return import_module("bitsandbytes.functional").dequantize_4bit(weight.data, weight.quant_state)
    return weight.dequantize()


def stored_bytes(layer: nn.Linear, scheme: str) -> int:
    """What the weight of a quantised layer takes: int8 and fp8 a float32 scale a row, nf4 one a block of 64."""
    count = layer.weight.numel()
    return count // 2 + 4 * count // 64 if scheme == "nf4" else count + 4 * layer.out_features


def _by_torchao(library: ModuleType, layer: nn.Linear, scheme: str) -> nn.Linear:
    make: Callable[[], Any] = library.Int8WeightOnlyConfig if scheme == "int8" else library.Float8WeightOnlyConfig
    holder = nn.Sequential(layer)
    library.quantize_(holder, make())
    quantised: nn.Linear = holder[0]
    return quantised.requires_grad_(False)


def _nf4(library: ModuleType, layer: nn.Linear) -> nn.Linear:
    weight = layer.weight.detach()
    made: nn.Linear = library.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=weight.dtype,
        compress_statistics=False,
        quant_type="nf4",
        device="meta",
    )
    made.weight = library.nn.Params4bit(weight, False, compress_statistics=False, quant_type="nf4", module=made)
    made.bias = layer.bias
    # Else it repacks itself in the first pass without gradients on some CPUs, and passes none from then on.
    made.support_avx512bf16_for_cpu = False
    made = made.to(weight.device)  # this is what quantises
    return made.requires_grad_(False).train(layer.training)


def _library(scheme: str) -> ModuleType:
    name = LIBRARY[scheme]
    try:
        return import_module("torchao.quantization" if name == "torchao" else name)
    except ImportError:
        raise InputError(
            f"--quantize {scheme} needs {name}, which is not installed; pip install 'spectral-fusion[{name}]'"
        ) from None
