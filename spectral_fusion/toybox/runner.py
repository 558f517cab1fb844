"""The training loop that all stages share: seeded, interruptible, resumed without loss.

Everything random in step `n` is a function of (seed, n), so a checkpoint holds weights, optimizer state and the step.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from spectral_fusion.atomic import write_safetensors
from spectral_fusion.errors import InputError
from spectral_fusion.toybox.data import Example
from spectral_fusion.toybox.optimizer import OPTIMIZERS, laid_out_as

logger = logging.getLogger(__name__)

Loss = Callable[[Example, torch.Generator], Tensor]


class Source(Protocol):
    """Where examples come from: batch number `n` is always the same."""

    def batches(self, batch: int, start: int, stop: int, workers: int = 0) -> Iterable[Example]:
        """Batches number `start` to `stop` of `batch` examples."""


@dataclass(frozen=True)
class Settings:
    """What must stay the same for a run to be resumed, but for `steps`, which may grow."""

    stage: str
    steps: int
    batch: int
    learning_rate: float
    seed: int = 0
    warmup: int = 200
    decay: float = 0.3  # the last part of the run, over which the rate falls to zero
    average: float = 0.999
    optimizer: str = "adamw"
    autocast: bool = False  # bfloat16 on the CPU too, not only on CUDA


class Runner:
    """Trains `model` by `loss` on batches of `source`; `average` holds the moving average of its weights.

    Raises InputError if the folder holds a checkpoint of other settings.
    """

    def __init__(self, settings: Settings, model: nn.Module, source: Source, loss: Loss, folder: Path) -> None:
        self.settings, self.model, self.source, self.loss = settings, model, source, loss
        self.path = folder / f"{settings.stage}.checkpoint.safetensors"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Convolutions are faster with channels last. The optimizer must see that layout from its first step on.
        self.model.to(self.device, memory_format=torch.channels_last).train()
        self.names, self.weights = map(list, zip(*self._trainable(), strict=True))
        self.optimizer = OPTIMIZERS[settings.optimizer](self._trainable(), settings.learning_rate)
        self.average = [weight.detach().clone() for weight in self.weights]
        self.step = 0
        if self.path.exists():
            self._load()

    def _trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]

    def rate(self, step: int) -> float:
        """Warm-up, constant, then linear to zero."""
        settings = self.settings
        begin = settings.steps * (1 - settings.decay)
        fall = 1.0 if step < begin else (settings.steps - step) / max(1.0, settings.steps - begin)
        return settings.learning_rate * min(1.0, (step + 1) / settings.warmup) * fall

    def run(
        self, on_step: Callable[[int, float], None] | None = None, save_every: float = 120.0, stop: int | None = None
    ) -> None:
        """Trains to the last step (or to step `stop`), and saves every so many seconds, at the end and on Ctrl-C."""
        saved = time.monotonic()
        workers = (os.cpu_count() or 2) - 1 if self.device.type == "cuda" else 0
        last = self.settings.steps if stop is None else min(stop, self.settings.steps)
        try:
            for batch in self.source.batches(self.settings.batch, self.step, last, workers):
                value = self._advance({key: self._moved(tensor) for key, tensor in batch.items()})
                if on_step:
                    on_step(self.step, value)
                if time.monotonic() - saved > save_every:
                    self.save()
                    saved = time.monotonic()
        finally:
            self.save()

    def _moved(self, tensor: Tensor) -> Tensor:
        """On the device, pictures with their channels last, as the model's weights are."""
        if tensor.ndim == 4:
            return tensor.to(self.device, memory_format=torch.channels_last)
        return tensor.to(self.device)

    def _advance(self, batch: Example) -> float:
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        half = self.device.type == "cuda" or self.settings.autocast
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            loss = self.loss(batch, generator)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self.weights], 1 - keep)
        self.step += 1
        return loss.item()

    def begin_with(self, weights: dict[str, Tensor]) -> None:
        """Starts from finished weights instead of random ones.

        Raises InputError if they are of another model.
        """
        missing = [
            name
            for name, weight in zip(self.names, self.weights, strict=True)
            if name not in weights or weights[name].shape != weight.shape
        ]
        if missing:
            raise InputError(f"the weights to begin with do not fit: {missing[0]} is missing or of another shape")
        with torch.no_grad():
            for name, weight, average in zip(self.names, self.weights, self.average, strict=True):
                weight.copy_(weights[name])
                average.copy_(weights[name])

    def use_average(self) -> nn.Module:
        """Puts the averaged weights into the model and returns it, ready for evaluation."""
        with torch.no_grad():
            for weight, average in zip(self.weights, self.average, strict=True):
                weight.copy_(average)
        return self.model.eval()

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        for name, weight, average in zip(self.names, self.weights, self.average, strict=True):
            tensors[f"weight.{name}"], tensors[f"average.{name}"] = weight.detach(), average
            for key, state in self.optimizer.state.get(weight, {}).items():
                tensors[f"optimizer.{key}.{name}"] = state
        for name, buffer in self.model.named_buffers():
            tensors[f"buffer.{name}"] = buffer
        header = {"step": str(self.step), "settings": json.dumps(asdict(self.settings), sort_keys=True)}
        write_safetensors(self.path, {key: tensor.clone() for key, tensor in tensors.items()}, header)

    def _load(self) -> None:
        with safe_open(self.path, "pt") as file:
            header = file.metadata()
            _check_same(json.loads(header["settings"]), asdict(self.settings), self.path)
            tensors = {key: file.get_tensor(key).to(self.device) for key in file.keys()}  # noqa: SIM118
        with torch.no_grad():
            for name, weight, average in zip(self.names, self.weights, self.average, strict=True):
                weight.copy_(tensors[f"weight.{name}"])
                average.copy_(tensors[f"average.{name}"])
                states = {key: tensors.get(f"optimizer.{key}.{name}") for key in _STATES}
                self.optimizer.state[weight] = {
                    key: laid_out_as(weight, state) for key, state in states.items() if state is not None
                }
            for name, buffer in self.model.named_buffers():
                buffer.copy_(tensors[f"buffer.{name}"])
        self.step = int(header["step"])
        logger.info("resumed %s at step %d", self.path, self.step)


_STATES = ("step", "exp_avg", "exp_avg_sq", "momentum")  # of any of the optimizers


def _check_same(found: dict, wanted: dict, path: Path) -> None:
    differing = [key for key in wanted if found.get(key) != wanted[key] and key != "steps"]
    if differing:
        listed = ", ".join(f"{key} {found.get(key)} there, {wanted[key]} asked" for key in differing)
        raise InputError(f"{path} is a checkpoint of other settings ({listed}); use those, or another folder")
