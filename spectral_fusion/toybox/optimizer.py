"""Optimizers of the training loop: AdamW, and orthogonalised momentum for matrices and convolutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

NamedWeights = Sequence[tuple[str, nn.Parameter]]
# First and last layers and tables are no matrices that mix features: they learn by AdamW. So do a transformer's
# modulations, a third of its weights, which would take half of the time that orthogonalising takes.
_PLAIN = (
    *("token_embedding", "position_embedding", "conv_in.", "conv_out.", "patch_embedding", "class_embedding"),
    *("pos_embed.proj.", "norm1.linear.", "norm1_context.linear.", "norm_out.", "transformer.proj_out."),
)


def adamw(weights: NamedWeights, learning_rate: float) -> torch.optim.Optimizer:
    """PyTorch's own, fused."""
    parameters = [weight for _, weight in weights]
    return torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)


def muon(weights: NamedWeights, learning_rate: float) -> torch.optim.Optimizer:
    """Muon for what `is_matrix` names, AdamW for all else, at one learning rate."""
    groups = [
        {
            "params": [weight for name, weight in weights if is_matrix(name, weight) == orthogonal],
            "orthogonal": orthogonal,
        }
        for orthogonal in (True, False)
    ]
    return Muon([group for group in groups if group["params"]], learning_rate)


OPTIMIZERS: dict[str, Callable[[NamedWeights, float], torch.optim.Optimizer]] = {"adamw": adamw, "muon": muon}


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether a weight mixes features, so that its update is orthogonalised."""
    return weight.ndim >= 2 and not any(plain in f"{name}." for plain in _PLAIN)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values between 0.7 and 1.2. matrices: (n, rows, columns).

    A quintic Newton-Schulz iteration (Jordan et al. 2024, "Muon").
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def laid_out_as(weight: Tensor, other: Tensor) -> Tensor:
    """`other`, of the weight's shape, with the weight's strides.

    The fused optimizer walks both by address, and compiled models hand out gradients in layouts of their own.
    """
    if other.ndim == 0 or other.stride() == weight.stride():
        return other
    return torch.empty_like(weight, requires_grad=False).copy_(other)


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` set follow the orthogonalised momentum, others AdamW.

    An orthogonalised update is scaled to the root mean square that AdamW's has (Liu et al. 2025), so that one learning
    rate serves both.
    """

    def __init__(self, groups: list[dict], learning_rate: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(
            groups, {"lr": learning_rate, "momentum": momentum, "betas": (0.9, 0.99), "weight_decay": decay}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            (self._orthogonal if group["orthogonal"] else self._adam)(group, weights)

    def _orthogonal(self, group: dict, weights: list[Tensor]) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's look ahead
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, weight in enumerate(weights):
            alike[tuple(weight.shape)].append(i)
        for shape, members in alike.items():
            # Half precision is three times as fast, and the iteration corrects itself.
            flat = torch.stack([updates[i].reshape(shape[0], -1) for i in members]).bfloat16()
            flat = orthogonalise(flat).to(updates[0].dtype)
            scale = 0.2 * max(flat.shape[1:]) ** 0.5
            for i, update in zip(members, flat, strict=True):
                weights[i].add_(update.reshape(shape), alpha=-group["lr"] * scale)

    def _adam(self, group: dict, weights: list[Tensor]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        states = [self.state[weight] for weight in weights]
        torch._fused_adamw_(
            weights,
            [laid_out_as(weight, weight.grad) for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"].add_(1) for state in states],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
