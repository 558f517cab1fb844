"""The training loop: a step is a function of the parameters, the optimizer's state and the step's number."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate.utils import reduce
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor

from spectral_fusion.errors import InputError
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.context import Context
from spectral_fusion.training.data import Example, Source
from spectral_fusion.training.model import TrainingModel
from spectral_fusion.training.optimizer import (
    LearningRate,
    build_optimizer,
    load_optimizer_state,
    optimizer_state,
    parameter_groups,
)
from spectral_fusion.training.processes import processes
from spectral_fusion.training.randomness import generator, randint
from spectral_fusion.training.stopping import Patience

BAD_STEPS = 5  # steps in a row whose loss may be NaN or infinite in half precision


@dataclass(frozen=True)
class Progress:
    """After one step: `step` of `steps` are done. `probe_loss` and `samples` on the steps that made them.

    likeness: of the samples to the photos, a mean cosine; None where the base has no scorer of identities.
    """

    step: int
    steps: int
    loss: float
    learning_rates: dict[str, float]
    probe_loss: float | None = None
    samples: Image.Image | None = None
    likeness: float | None = None
    is_over: bool = False
    """Whether the training ends here, before its last step, because it no longer gains."""


def shares(batch_size: int, parts: int, processes: int, rank: int) -> list[range]:
    """The indices in the global batch of each part that process `rank` handles.

    Part k of all processes together is a run of the batch, so one process with 2 parts sums the gradients that two
    processes with 1 part each would.

    Raises:
        InputError: the batch does not split evenly.
    """
    count = parts * processes
    if batch_size % count:
        raise InputError(
            f"batch_size {batch_size} does not split into {count} equal parts ({processes} processes with "
            f"gradient_accumulation {parts}); give a multiple of {count}"
        )
    size = batch_size // count
    starts = [(part * processes + rank) * size for part in range(parts)]
    return [range(start, start + size) for start in starts]


class Diverged(InputError):
    """The loss or a trained number is not finite."""


class Loop:
    """Trains a `TrainingModel` on pictures, an example of each source at a time, in one of the contexts a step.

    `step` steps are done; `advance` does the next.
    """

    def __init__(
        self,
        model: TrainingModel,
        pictures: Sequence[Source],
        config: ResolvedConfig,
        contexts: Sequence[Context] = (Context(),),
    ):
        self.model, self.pictures, self.config, self.contexts = model, pictures, config, contexts
        self.step = self.bad_steps = 0
        self.parameters = model.parameters
        self._first = [value.detach().clone() for value in self.parameters.values()]
        self.optimizer = build_optimizer(parameter_groups(self.parameters, config), config)
        self.learning_rate = LearningRate(self.optimizer, config)
        self.scaler = torch.amp.GradScaler(model.base.device.type, enabled=config.precision == "fp16")
        self.patience = Patience(config.early_stopping_patience)
        self.average = EMAModel(self._values, config.ema_decay, foreach=True) if config.ema_decay else None
        state = processes()
        self.shares = shares(config.batch_size, config.gradient_accumulation, state.num_processes, state.process_index)

    def advance(self) -> Progress:
        """One optimizer step on the global batch.

        Raises:
            Diverged: the loss is not finite.
        """
        rates = self.learning_rate.set(self.step)
        context = self.contexts[randint(len(self.contexts), generator(self.config.seed, "lesson", self.step))]
        with context.within():
            loss = self._reduce(self._gradients([*self.pictures, *context.sources]))
        self._check_finite(loss)
        self.scaler.unscale_(self.optimizer)
        if self.config.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:
            raise Diverged(
                f"gradients overflow at step {self.step} however small the loss is scaled; lower "
                "the learning rates or use --precision fp32"
            )
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.step(self._values)
        self.step += 1
        return Progress(self.step, self.config.steps, loss, rates)

    @property
    def _values(self) -> list[torch.nn.Parameter]:
        return list(self.parameters.values())

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or the training no longer gains."""
        return self.step >= self.config.steps or self.patience.is_over

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the parameters are their moving averages, where those are kept."""
        if self.average is None:
            yield
            return
        self.average.store(self._values)
        self.average.copy_to(self._values)
        try:
            yield
        finally:
            self.average.restore(self._values)

    def finish(self) -> None:
        """The parameters become their moving averages, where those are kept: the training is at its end."""
        if self.average is not None:
            self.average.copy_to(self._values)

    @torch.no_grad()
    def check_moved(self) -> None:
        """Raises InputError where training changed nothing, or left numbers that are not finite."""
        values = list(self.parameters.values())
        if not all(torch.isfinite(value).all() for value in values):
            raise Diverged("the training ended in numbers that are not finite; lower the learning rates, use fp32")
        if all(torch.equal(value, first) for value, first in zip(values, self._first, strict=True)):
            raise InputError("the training changed nothing; raise the learning rates, or use --precision fp32")

    def _check_finite(self, loss: float) -> None:
        """Half precision overflows now and then, and the scaler skips such a step; many in a row teach nothing."""
        self.bad_steps = 0 if math.isfinite(loss) else self.bad_steps + 1
        if self.bad_steps == 0 or (self.scaler.is_enabled() and self.bad_steps < BAD_STEPS):
            return
        if self.step < self.bad_steps:  # none was good
            raise Diverged(
                f"the loss is {loss} from the first step on, before anything was learned: the base has weights that "
                f"are not finite, or {self.config.precision} is too coarse for it; get the base again, or use "
                "--precision fp32"
            )
        raise Diverged(f"the loss is {loss} at step {self.step}; lower the learning rates or use --precision fp32")

    def _gradients(self, sources: Sequence[Source]) -> Tensor:
        """Add up the gradients of this process' share of the batch; returns its loss, ()."""
        total = torch.zeros((), device=self.model.base.device)
        for share in self.shares:
            part = self._weighted_loss([source.draw(self.step, index) for index in share for source in sources])
            self.scaler.scale(part).backward()
            total += part.detach()
        return total

    def _weighted_loss(self, examples: list[Example]) -> Tensor:
        """This part's share of the mean over the global batch, summed over the sources by their weights."""
        losses = self.model.losses(examples, min_snr_gamma=self.config.min_snr_gamma)
        weights = torch.tensor([example.weight for example in examples], device=losses.device)
        return (losses * weights).sum() / self.config.batch_size

    def _reduce(self, loss: Tensor) -> float:
        """Sum gradients and loss over all processes; a parameter that no picture touched counts as zero everywhere."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if processes().num_processes > 1:
            grads = [parameter.grad for parameter in self.parameters.values()]
            flat = reduce(torch.cat([loss.reshape(1), *(grad.flatten() for grad in grads)]), reduction="sum")
            first, *parts = flat.split([1, *(grad.numel() for grad in grads)])
            loss = first
            for grad, part in zip(grads, parts, strict=True):
                grad.copy_(part.view_as(grad))
        return float(loss)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON values from which `load_state` continues exactly."""
        tensors, rest = optimizer_state(self.optimizer)
        named = {f"parameter.{name}": parameter for name, parameter in self.parameters.items()}
        named |= {f"optimizer.{name}": tensor for name, tensor in tensors.items()}
        facts = {"optimizer": rest, "scaler": self.scaler.state_dict()}
        if self.average is not None:
            names = zip(self.parameters, self.average.shadow_params, strict=True)
            named |= {f"average.{name}": tensor for name, tensor in names}
        return named, facts | {"patience": asdict(self.patience)}

    @torch.no_grad()
    def load_state(self, step: int, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """The inverse of `state`, after `step` steps."""
        groups: dict[str, dict[str, Tensor]] = {"parameter": {}, "optimizer": {}, "average": {}}
        for key, tensor in tensors.items():
            group, _, name = key.partition(".")
            groups[group][name] = tensor
        for name, parameter in self.parameters.items():
            parameter.copy_(groups["parameter"][name])
        load_optimizer_state(self.optimizer, groups["optimizer"], rest["optimizer"])
        self.scaler.load_state_dict(rest["scaler"])
        if self.average is not None:
            device = self.model.base.device
            self.average.shadow_params = [groups["average"][name].to(device) for name in self.parameters]
            self.average.optimization_step = step
        if "patience" in rest:  # older checkpoints have none
            self.patience = Patience(**rest["patience"])
        self.step = step
