"""Optimizers and the learning rate as a function of the step."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from spectral_fusion.errors import InputError
from spectral_fusion.training.config import ResolvedConfig


def parameter_groups(parameters: dict[str, nn.Parameter], config: ResolvedConfig) -> list[dict[str, Any]]:
    """Token embeddings, text encoders and denoiser, each with its own learning rate, where they train.

    Weight decay pulls towards zero, which is no change for an adapter's tensors, but another word for a token's vector:
    these are not decayed.
    """
    groups: dict[str, list[nn.Parameter]] = {"embedding": []}
    for name, parameter in parameters.items():
        group = "embedding" if name.endswith(".rows") else name.partition(".")[0]
        groups.setdefault(group, []).append(parameter)
    decay = {"embedding": {"weight_decay": 0.0}}
    return [
        {"params": group, "lr": config.learning_rate_of(name), "name": name} | decay.get(name, {})
        for name, group in groups.items()
        if group
    ]


def build_optimizer(groups: list[dict[str, Any]], config: ResolvedConfig) -> torch.optim.Optimizer:
    """The optimizer of `config.optimizer`.

    Raises:
        InputError: it is not installed.
    """
    settings: dict[str, Any] = {"betas": (0.9, 0.999), "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **settings)
    if config.optimizer == "adamw8bit":
        return _optional("bitsandbytes.optim", "AdamW8bit", "bitsandbytes")(groups, **settings)
    return _optional("prodigyopt", "Prodigy", "prodigyopt")(groups, safeguard_warmup=True, **settings)


def _optional(module: str, name: str, package: str) -> Callable[..., torch.optim.Optimizer]:
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise InputError(f"this optimizer needs the package {package}; pip install {package}, or use adamw") from error


class LearningRate:
    """Sets each group's learning rate to its first one times the schedule's factor: a function of the step alone."""

    def __init__(self, optimizer: torch.optim.Optimizer, config: ResolvedConfig):
        self.optimizer = optimizer
        self.first = [group["lr"] for group in optimizer.param_groups]
        # diffusers' schedules are factors of the step in a scheduler that counts; a spare optimizer keeps it off ours.
        spare = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
        schedule = get_scheduler(
            config.schedule, spare, num_warmup_steps=config.warmup_steps, num_training_steps=config.steps
        )
        self.factor: Callable[[int], float] = schedule.lr_lambdas[0]

    def set(self, step: int) -> dict[str, float]:
        """Set the rates for `step`, counted from 0; returns them by the groups' names."""
        for group, first in zip(self.optimizer.param_groups, self.first, strict=True):
            group["lr"] = first * self.factor(step)
        return {group["name"]: group["lr"] for group in self.optimizer.param_groups}


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state as tensors and as JSON values, each named by its path: `state/<parameter number>/exp_avg`."""
    saved = optimizer.state_dict()
    flat = _flat({"state": saved["state"], "param_groups": dict(enumerate(saved["param_groups"]))})
    tensors = {name: value for name, value in flat.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in flat.items() if name not in tensors}


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
    """The inverse of `optimizer_state`."""
    tree: dict[str, Any] = {"state": {}, "param_groups": {}}
    for name, value in {**tensors, **rest}.items():
        *path, last = name.split("/")
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = value
    state = {int(number): entry for number, entry in tree["state"].items()}
    groups = [tree["param_groups"][number] for number in sorted(tree["param_groups"], key=int)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _flat(tree: dict[Any, Any], path: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a/b": 1}`; some optimizers nest their state."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{path}{key}/") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat
