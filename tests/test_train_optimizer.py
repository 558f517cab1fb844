"""Optimizers: a learning rate for each part, a schedule without a memory, a state that survives a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from spectral_fusion.training.checkpoint import Checkpoint
from spectral_fusion.training.config import Schedule, TrainConfig
from spectral_fusion.training.optimizer import (
    LearningRate,
    build_optimizer,
    load_optimizer_state,
    optimizer_state,
    parameter_groups,
)
from training import resolved


def settings(**changes: Any) -> TrainConfig:
    given: dict[str, Any] = {"name": "rex", "class_word": "dog", "steps": 10}
    return resolved(TrainConfig(**given | changes), resolution=512, prediction_type="epsilon", precision="fp32")


def parameters() -> dict[str, nn.Parameter]:
    names = (
        "text_encoder.embeddings.token_embedding.rows",
        "text_encoder.q_proj.spectral_A.rex",
        "unet.to_q.spectral_A",
    )
    return {name: nn.Parameter(torch.ones(3)) for name in names}


class Nested(torch.optim.Optimizer):
    """Keeps what some optimizers keep: a dictionary inside the state, a tensor shared by two entries and in a group."""

    def __init__(self, groups: list[dict[str, Any]]):
        super().__init__(groups, {"lr": 0.1})
        table = torch.arange(4.0)
        for group in self.param_groups:
            group["sum"] = torch.zeros(())
            for parameter in group["params"]:
                self.state[parameter] = {"step": 0, "inner": {"table": table, "sum": torch.zeros(3)}}

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["step"] += 1
                state["inner"]["sum"] += parameter.grad
                group["sum"] = group["sum"] + parameter.grad.sum()
                moved = group["lr"] * (state["inner"]["sum"] + group["sum"] + state["inner"]["table"][1])
                parameter.data -= moved / state["step"]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, Nested])
def test_the_state_survives_a_checkpoint(kind: Callable, tmp_path: Path) -> None:
    def make() -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
        named = parameters()
        return named, kind(parameter_groups(named, settings()))

    def step(named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, number: int) -> None:
        for place, parameter in enumerate(named.values()):
            parameter.grad = torch.full((3,), 0.1 * number + place)
        optimizer.step()

    named, optimizer = make()
    for number in range(3):
        step(named, optimizer, number)
    tensors, rest = optimizer_state(optimizer)
    Checkpoint(3, tensors, {"rest": rest}).save(tmp_path / "checkpoint")
    kept = Checkpoint.load(tmp_path / "checkpoint")
    others, again = make()
    for name, parameter in others.items():
        parameter.data = named[name].detach().clone()
    load_optimizer_state(again, kept.tensors, kept.facts["rest"])
    for number in range(3, 6):
        step(named, optimizer, number)
        step(others, again, number)
    assert all(torch.equal(named[name], others[name]) for name in named)


def test_each_part_has_its_learning_rate() -> None:
    config = settings(learning_rate_embedding=0.3, learning_rate_text_encoder=0.2, learning_rate_unet=0.1)
    groups = parameter_groups(parameters(), config)
    assert {group["name"]: (group["lr"], len(group["params"])) for group in groups} == {
        "embedding": (0.3, 1),
        "text_encoder": (0.2, 1),
        "unet": (0.1, 1),
    }


def test_the_learning_rate_is_a_function_of_the_step() -> None:
    config = settings(learning_rate_unet=1.0, schedule="linear", warmup_steps=2)
    forwards = LearningRate(build_optimizer(parameter_groups(parameters(), config), config), config)
    rates = [forwards.set(step)["unet"] for step in range(10)]
    assert rates[:3] == [0, 0.5, 1]
    assert rates == [*sorted(rates[:3]), *sorted(rates[3:], reverse=True)]
    backwards = LearningRate(build_optimizer(parameter_groups(parameters(), config), config), config)
    assert [backwards.set(step)["unet"] for step in reversed(range(10))] == rates[::-1]


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_every_schedule_keeps_within_its_rate(schedule: str) -> None:
    config = settings(learning_rate_unet=1.0, schedule=schedule)
    rate = LearningRate(build_optimizer(parameter_groups(parameters(), config), config), config)
    assert all(0 <= rate.set(step)["unet"] <= 1 for step in range(10))
