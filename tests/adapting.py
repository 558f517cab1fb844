"""Helpers of the adapter tests: trained-looking adapters on small modules."""

import torch
from torch import nn


def train(model: nn.Module, adapter_name: str, *, size: float = 0.1, seed: int = 0) -> None:
    """Put random values where training would: into every trainable tensor of one adapter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "spectral_" in name and name.endswith(f".{adapter_name}"):
            parameter.data += size * torch.randn(parameter.shape, generator=generator)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every base weight, by its name without adapters."""
    return {
        name.replace(".base_layer", ""): parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if "spectral_" not in name and "lora_" not in name
    }


def assert_same_weights(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    found = weights(model)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
