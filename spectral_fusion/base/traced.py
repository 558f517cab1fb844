"""The memory that a piece of work takes, found by doing it on the meta device, where tensors have shapes only.

Every storage that is made is counted while it lives, so the peak is that of the work's own order: activations that
autograd keeps, those that are computed again, gradients, and what is large for a moment only.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What autocast does on a GPU: products in the lower type, norms in float32.
LOWERED = {F.linear, torch.conv2d, torch.addmm, torch.matmul, torch.bmm, torch.baddbmm}
RAISED = {F.layer_norm, F.group_norm, F.rms_norm}


class LiveBytes(TorchDispatchMode):
    """Within the `with` block `peak` grows to the most bytes that were alive at once.

    Args:
        known: tensors that were there before, such as weights, and are not counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        weakref.finalize(storage, self._release, key, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class _Attention(torch.autograd.Function):
    """The memory of fused attention: queries, keys, values, the result and a number a row are kept, no matrix."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


class AsOnDevice(TorchFunctionMode):
    """Within the `with` block attention is fused, and below float32 types change as autocast changes them."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key, value = (self._cast(tensor, self.dtype) for tensor in args[:3] or _named(kwargs))
            return _Attention.apply(query, key, value)
        if self.dtype != torch.float32 and func in LOWERED | RAISED:
            to = self.dtype if func in LOWERED else torch.float32
            args = [self._cast(value, to) for value in args]
            kwargs = {name: self._cast(value, to) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    @staticmethod
    def _cast(value: Any, dtype: torch.dtype) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _named(kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    return kwargs["query"], kwargs["key"], kwargs["value"]


def backward(loss: Tensor) -> None:
    """As `loss.backward()`, which would leave `AsOnDevice` while it runs: what is computed again needs it too."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def tensors_of(*models: nn.Module) -> list[Tensor]:
    """Weights and buffers."""
    return [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]


def bytes_of(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    """What a model's weights and buffers take; in another type if one is given."""
    size = None if dtype is None else dtype.itemsize
    return sum(t.numel() * (size if size and t.is_floating_point() else t.element_size()) for t in tensors_of(model))
