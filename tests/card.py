"""A graphics card where there is none: what lies on it has no numbers, and must not meet what lies beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks.group_offloading import ModuleGroup
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
COPIES = {ATEN._to_copy, ATEN.copy_}


class Card(TorchDispatchMode):
    """Within the `with` block the meta device is a card: copies back are zeros, and every question is answered yes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket
        if name is ATEN._local_scalar_dense and args[0].is_meta:
            return True
        if name is ATEN._to_copy and args[0].is_meta and str(kwargs.get("device") or "meta") != "meta":
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if name not in COPIES:
            met = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.ndim]
            if len({tensor.is_meta for tensor in met}) > 1:
                raise RuntimeError(f"{func} has tensors on the card and beside it")
        return func(*args, **kwargs)


@contextmanager
def only_blocks_at_work(model: nn.Module, monkeypatch: Any) -> Iterator[list[int]]:
    """Within the `with` block groups of a model that are not on the card hold no numbers; yields the most at once."""
    hooks = (getattr(module, "_diffusers_hook", None) for module in model.modules())
    found = (hook.get_hook("group_offloading") for hook in hooks if hook is not None)
    groups = {id(hook.group): hook.group for hook in found if hook is not None}.values()
    kept: dict[int, list[tuple[Tensor, Tensor]]] = {}
    most = [0]

    def away(group: ModuleGroup) -> None:
        tensors = [t for module in group.modules for t in (*module.parameters(), *module.buffers())]
        if id(group) not in kept:
            kept[id(group)] = [(t, t.data) for t in (*tensors, *group.parameters, *group.buffers)]
            for tensor, data in kept[id(group)]:
                tensor.data = torch.full_like(data, float("nan") if data.is_floating_point() else 0)

    def back(group: ModuleGroup) -> None:
        for tensor, data in kept.pop(id(group), ()):
            tensor.data = data
        most[0] = max(most[0], len(groups) - len(kept))

    monkeypatch.setattr(ModuleGroup, "offload_", away)
    monkeypatch.setattr(ModuleGroup, "onload_", back)
    for group in groups:
        away(group)
    try:
        yield most
    finally:
        for tensor, data in (pair for pairs in kept.values() for pair in pairs):
            tensor.data = data
