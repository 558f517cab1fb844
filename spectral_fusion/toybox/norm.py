"""Group normalisation with a fast backward pass on a CPU with channels last: PyTorch's own is ten times slower."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NARROW = 16  # channels: up to here it pays to bring the channels first, and back


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        size = (x.shape[0], x.shape[1], x[0, 0].numel())
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *size, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups = groups
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        if x.shape[1] > NARROW:
            return (*_backward(dy, x, weight, mean.float(), rstd.float(), ctx.groups), None, None)
        size = (x.shape[0], x.shape[1], x[0, 0].numel())
        first = torch.ops.aten.native_group_norm_backward(
            dy.contiguous(), x.contiguous(), mean, rstd, weight, *size, ctx.groups, [True] * 3
        )
        return (first[0].contiguous(memory_format=torch.channels_last), first[1], first[2], None, None)


def _backward(dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, groups: int) -> tuple[Tensor, ...]:
    """The gradients of input, weight and bias. dy, x: (n, channels, height, width); mean, rstd: (n, groups).

    dx = rstd * weight * dy + c2 * x + c3, where c2 and c3 of each group come from the sums of dy and of dy * x.
    """
    n, channels, height, width = x.shape
    each, pixels = channels // groups, height * width
    flat_x, flat_dy = (t.permute(0, 2, 3, 1).reshape(n, pixels, channels) for t in (x, dy))
    sum_dy = flat_dy.sum(1, dtype=torch.float32)
    sum_dyx = (flat_dy * flat_x).sum(1, dtype=torch.float32)
    of_dy, of_dyx = ((t * weight.float()).view(n, groups, each).sum(2) for t in (sum_dy, sum_dyx))
    c2 = (of_dy * mean - of_dyx) * rstd**3 / (each * pixels)
    c3 = -c2 * mean - of_dy * rstd / (each * pixels)
    a, b, c, means, rstds = (t.repeat_interleave(each, 1) for t in (rstd, c2, c3, mean, rstd))
    a, b, c = ((t.to(x.dtype))[:, None] for t in (a * weight.float(), b, c))
    dx = torch.addcmul(torch.addcmul(c, flat_x, b), flat_dy, a)
    dx = dx.view(n, height, width, channels).permute(0, 3, 1, 2)
    return dx, ((sum_dyx - sum_dy * means) * rstds).sum(0).to(weight.dtype), sum_dy.sum(0).to(weight.dtype)


class FastGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` with the backward pass of this file."""

    def forward(self, x: Tensor) -> Tensor:
        slow = x.ndim == 4 and x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
        if slow and torch.is_grad_enabled():
            return _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(x)


def with_fast_norms(model: nn.Module) -> nn.Module:
    """The same model with each group normalisation replaced by the fast one on the same weights."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.GroupNorm:
                fast = FastGroupNorm(child.num_groups, child.num_channels, child.eps, device="meta")
                fast.weight, fast.bias = child.weight, child.bias
                setattr(module, name, fast)
    return model
