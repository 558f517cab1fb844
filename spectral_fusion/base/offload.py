"""Models on a card that holds one of them at a time, or one block of the denoiser: they lie on the CPU in between.

The hooks are accelerate's, as in diffusers' own offloading of whole models, and diffusers' own for groups of blocks.
diffusers' chain of models is not taken: where more is read in the middle of a picture, a text encoder comes to the card
there while the denoiser is still on it. Nor are streams: they keep copies of the weights as they were, without what is
fused into them later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.hooks import CpuOffload, add_hook_to_module
from accelerate.utils import send_to_device
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn

CPU = torch.device("cpu")


class _OneAtATime(CpuOffload):
    """Before a model works, the others leave the card, and it comes with what it is given."""

    def __init__(self, device: torch.device, others: Sequence[nn.Module]) -> None:
        super().__init__(execution_device=device)
        self.others = others

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        leave(self.others)
        module.to(self.execution_device)
        return send_to_device(args, self.execution_device), send_to_device(kwargs, self.execution_device)


def leave(models: Sequence[nn.Module]) -> None:
    """Move models to the CPU, and give back what they took."""
    away = [model for model in models if next(model.parameters()).device != CPU]
    for model in away:
        model.to(CPU)
    if away and torch.cuda.is_available():
        torch.cuda.empty_cache()


def one_at_a_time(models: Sequence[nn.Module], device: torch.device) -> None:
    """Of these models the one that works is on the device, and the others are on the CPU."""
    for model in models:
        others = [other for other in models if other is not model]
        add_hook_to_module(model.to(CPU), _OneAtATime(device, others))


def by_blocks(denoiser: nn.Module, others: Sequence[nn.Module], device: torch.device) -> None:
    """`one_at_a_time`, and of the denoiser one block of those that it has in rows, and what stands in no row."""
    one_at_a_time(others, device)
    apply_group_offloading(
        denoiser, onload_device=device, offload_device=CPU, offload_type="block_level", num_blocks_per_group=1
    )
    denoiser.register_forward_pre_hook(lambda *_: leave(others))


class LayerVisits:
    """Of a model under training, frozen weights lie on the CPU, and a layer's come to the device while it works.

    Backward needs them again. With gradient checkpointing each block is computed again there, which brings its weights
    once more, until it is done; those of layers outside of all blocks stay until backward has passed them. diffusers'
    groups of blocks are not taken: they move what is trained too, and its gradient would be elsewhere.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self.layers = [layer for layer in model.modules() if any(True for _ in layer.parameters(recurse=False))]
        self._at_home: dict[nn.Module, dict[str, nn.Parameter | None]] = {}
        for layer in self.layers:
            layer.register_forward_pre_hook(self._come)
            layer.register_forward_hook(self._go, always_call=True)  # where a block is computed again, it is broken off
        self.settle()

    def settle(self) -> None:
        """Bring to the device all but the weights that come and go: buffers, and adapters that were put on since."""
        visiting = set(self.layers)
        for module in self.model.modules():
            if module not in visiting:
                for name, weight in module.named_parameters(recurse=False):
                    moved = nn.Parameter(weight.data.to(self.device), weight.requires_grad)
                    module._parameters[name] = weight if weight.device == self.device else moved
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.device)

    def fetch(self, weight: Tensor) -> Tensor:
        """A weight as it is on the device."""
        return weight.to(self.device, non_blocking=True)

    def _come(self, layer: nn.Module, _: Any) -> None:
        """Other parameters take the places of a layer's own: what backward keeps is on the device then."""
        if layer not in self._at_home:
            self._at_home[layer] = dict(layer._parameters)
            for name, weight in layer.named_parameters(recurse=False):
                layer._parameters[name] = nn.Parameter(self.fetch(weight.data), requires_grad=False)

    def _go(self, layer: nn.Module, *_: Any) -> None:
        if layer in self._at_home:
            layer._parameters.update(self._at_home.pop(layer))


def work_device(model: nn.Module) -> torch.device:
    """Where a model works, which is not where it lies in between."""
    hook = getattr(model, "_hf_hook", None)
    return hook.execution_device if isinstance(hook, _OneAtATime) else next(model.parameters()).device
