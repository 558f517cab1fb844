"""Which switches make a training fit into the memory that there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from spectral_fusion.base.interface import Base
from spectral_fusion.base.load import own_dtype
from spectral_fusion.base.outline import outline
from spectral_fusion.training.config import TrainConfig
from spectral_fusion.training.memory import Kind, Prediction, Traces, predict

SMALLEST = 512  # px: a full-size base learns little from smaller pictures


@dataclass(frozen=True)
class Fit:
    """A training that fits: the flags that make it fit, beside those that were given, and what it takes then."""

    flags: tuple[str, ...]
    prediction: Prediction


def predicted(
    config: TrainConfig,
    kind: Kind,
    *,
    open_outline: Callable[[], Base] | None = None,
    others: bool = False,
    traces: Traces | None = None,
) -> Prediction:
    """The memory that a training with these settings takes, from its base's configurations alone.

    Args:
        kind: of the device that trains. Precision is what it is best at, where the settings leave it open.
        open_outline: None for `config.base`'s own.
        others: whether the concept is trained beside others.
        traces: work that was counted already, to be shared and added to.

    Raises:
        InputError: the base is missing, damaged, or of no family known here; no layer matches.
    """
    base = outline(config.base) if open_outline is None else open_outline()
    stored = own_dtype(config.base) if open_outline is None else torch.bfloat16
    settings = config.resolved(base.presets(config.mode, config.preset), "bf16" if kind == "gpu" else "fp32")
    return predict(base, settings, kind=kind, stored=stored, others=others, traces=traces)


def first_fit(
    config: TrainConfig,
    kind: Kind,
    room: float,
    *,
    open_outline: Callable[[], Base] | None = None,
    others: bool = False,
) -> Fit | None:
    """The first of `ladder` that fits into `room` bytes; None where none does."""
    return first_fits(fits_down(config, kind, open_outline=open_outline, others=others), [room])[room]


def first_fits(down: Iterable[Fit], rooms: Sequence[float]) -> dict[float, Fit | None]:
    """The first that fits into each of several rooms; none is asked for that no room needs."""
    found: dict[float, Fit | None] = dict.fromkeys(rooms)
    for fit in down:
        for room in rooms:
            if found[room] is None and fit.prediction.peak <= room:
                found[room] = fit
        if all(found.values()):
            break
    return found


def fits_down(
    config: TrainConfig, kind: Kind, *, open_outline: Callable[[], Base] | None = None, others: bool = False
) -> Iterator[Fit]:
    """The training as it is, and with each of `ladder`: what they take, each predicted when it is asked for."""
    base = outline(config.base) if open_outline is None else open_outline()
    batch = config.batch_size or base.presets(config.mode, config.preset)["batch_size"]
    traces: Traces = {}
    for changes in ladder(config, kind, batch, config.resolution or base.size):
        changed = replace(config, **changes)
        found = predicted(changed, kind, open_outline=open_outline, others=others, traces=traces)
        yield Fit(tuple(flag_of(name, value) for name, value in changes.items()), found)


def ladder(config: TrainConfig, kind: Kind, batch: int, size: int) -> Iterator[dict[str, Any]]:
    """Changes of settings that take less and less memory: first those that leave the result as it is."""
    changes: dict[str, Any] = {}
    yield dict(changes)
    if not config.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if not config.low_memory:
        changes["low_memory"] = True
        yield dict(changes)
    if batch > 1 and config.gradient_accumulation < batch:
        changes["gradient_accumulation"] = batch
        yield dict(changes)
    if config.quantize is None:
        for scheme in ("int8", "nf4"):
            changes["quantize"] = scheme
            yield dict(changes)
    if config.quantize is None:
        yield {name: value for name, value in changes.items() if name != "quantize"} | {"offload_blocks": True}
    for smaller in (size * 3 // 4, size // 2):
        if smaller >= SMALLEST:
            yield changes | {"resolution": smaller // 64 * 64}


def flag_of(name: str, value: Any) -> str:
    """A setting as the command line has it: `--low-memory`, `--resolution 768`."""
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag} {value}"


def room_of(device: torch.device) -> int:
    """Bytes that are free on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
