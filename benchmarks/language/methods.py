"""The methods that are compared, each at the size at which it trains as many numbers as the others."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    DeloraConfig,
    FourierFTConfig,
    HRAConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PsoftConfig,
    VeraConfig,
    get_peft_model,
)
from torch import nn

from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.spectral import Mode, Triplets, all_triplets

Place = Literal["top", "middle", "bottom", "random"]
PLACES: tuple[Place, ...] = ("top", "middle", "bottom", "random")
RANKS = (*range(1, 9), *range(10, 33, 2), *range(36, 65, 4))
BLOCKS = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Context:
    """What a configuration may need to know: the model to adapt, its layers, the steps to come."""

    model: nn.Module
    targets: tuple[str, ...]
    steps: int


Make = Callable[[Context, int], PeftConfig]


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    make: None for full fine-tuning, which has no size.
    sizes: among which the one with the wanted number of trained parameters is chosen.
    """

    name: str
    title: str
    make: Make | None
    sizes: tuple[int, ...] = RANKS

    @property
    def ours(self) -> bool:
        return self.name.startswith(("additive", "rotational"))


def _lora(**settings: Any) -> Make:
    return lambda at, r: LoraConfig(r=r, lora_alpha=r, target_modules=list(at.targets), **settings)


def _adalora(at: Context, r: int) -> PeftConfig:
    """Begins with the common number of parameters and prunes a third of the ranks in the middle of the training."""
    target = max(1, 2 * r // 3)
    ramp = {"tinit": at.steps // 10, "tfinal": at.steps // 4, "deltaT": max(1, at.steps // 20)}
    return AdaLoraConfig(
        init_r=r, target_r=target, lora_alpha=r, total_step=at.steps, target_modules=list(at.targets), **ramp
    )


def _of(kind: type[PeftConfig], size: str, **settings: Any) -> Make:
    return lambda at, value: kind(target_modules=list(at.targets), **{size: value}, **settings)


def _psoft(at: Context, r: int) -> PeftConfig:
    return PsoftConfig(r=r, psoft_alpha=r, target_modules=list(at.targets))


def spectral(mode: Mode, place: Place) -> Make:
    """A spectral adapter in a band at a place of each layer's spectrum."""
    return lambda at, r: SpectralConfig(
        r=r, mode=mode, target_modules=list(at.targets), init_basis=band_basis(at.model, at.targets, place, r)
    )


def band_basis(model: nn.Module, targets: Sequence[str], place: Place, r: int) -> dict[str, Triplets]:
    """`r` triplets of each target layer: the first, the middle or the last ones, or some at random."""
    found = {}
    for number, (name, layer) in enumerate(target_layers(model, targets).items()):
        U, S, V = all_triplets(layer.weight)
        n = len(S)
        chosen = {
            "top": range(r),
            "middle": range((n - r) // 2, (n - r) // 2 + r),
            "bottom": range(n - r, n),
            "random": sorted(torch.randperm(n, generator=torch.Generator().manual_seed(number))[:r].tolist()),
        }[place]
        own = torch.tensor(chosen)
        found[name] = Triplets(U[:, own].contiguous(), S[own].contiguous(), V[:, own].contiguous())
    return found


def target_layers(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    endings = tuple(f".{target}" for target in targets)
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.Linear) and name.endswith(endings)}


METHODS = {
    method.name: method
    for method in (
        Method("full", "full fine-tuning", None, (0,)),
        Method("lora", "LoRA", _lora()),
        Method("dora", "DoRA", _lora(use_dora=True)),
        Method("pissa", "PiSSA", _lora(init_lora_weights="pissa")),
        Method("mica", "MiCA", _lora(init_lora_weights="mica")),
        Method("adalora", "AdaLoRA", _adalora),
        Method("oft", "OFT", _of(OFTConfig, "oft_block_size", r=0), BLOCKS),
        Method("boft", "BOFT", _of(BOFTConfig, "boft_block_size", boft_n_butterfly_factor=1), BLOCKS),
        Method("hra", "HRA", _of(HRAConfig, "r"), tuple(r for r in RANKS if r == 1 or r % 2 == 0)),
        Method("psoft", "PSOFT", _psoft),
        Method("delora", "DeLoRA", _of(DeloraConfig, "r")),
        Method("fourierft", "FourierFT", _of(FourierFTConfig, "n_frequency"), tuple(160 * r for r in RANKS)),
        Method("vera", "VeRA", _of(VeraConfig, "r", save_projection=False), tuple(64 * r for r in RANKS)),
        *(
            Method(f"{mode}-{place}", f"{mode}, {place} band", spectral(mode, place))
            for mode in ("additive", "rotational")
            for place in PLACES
        ),
    )
}


def trained_numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def adapt(method: Method, at: Context, size: int) -> nn.Module:
    """The model with the method's adapter on it, or all of it trainable."""
    if method.make is None:
        return at.model.requires_grad_(True)
    return get_peft_model(at.model, method.make(at, size))


def matched_size(method: Method, at: Context, budget: int) -> int:
    """The size at which a method trains a number of parameters nearest to `budget`, by ratio."""
    if method.make is None:
        return 0
    found: dict[int, float] = {}
    for size in method.sizes:
        copied = Context(copy.deepcopy(at.model), at.targets, at.steps)
        try:
            numbers = trained_numbers(adapt(method, copied, size))
        except ValueError:  # a block that does not divide a layer, a rank that it does not have
            continue
        found[size] = abs(math.log(numbers / budget))
        if numbers > budget:  # sizes rise, and the numbers with them
            break
    if not found:
        raise ValueError(f"{method.title} has no size that fits these layers")
    return min(found, key=found.__getitem__)


def budget(at: Context, rank: int) -> int:
    """What a LoRA of this rank trains: the number that all methods are given."""
    return sum(
        rank * (layer.out_features + layer.in_features) for layer in target_layers(at.model, at.targets).values()
    )
