"""Predicted memory in words."""

from typing import TYPE_CHECKING, Literal

from rich.console import Console

from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.training.config import TrainConfig
    from spectral_fusion.training.fitting import Fit

PHASES = {
    "opening": "while the base loads and its bands are found",
    "encoding": "while pictures are encoded",
    "training": "in the training's steps",
    "drawing": "while pictures are drawn",
}


def said(fit: "Fit | None") -> str:
    """What a size of memory needs, in words."""
    if fit is None:
        return "does not fit"
    took = f"{fit.prediction.peak / 1e9:.1f} GB"
    return f"{' '.join(fit.flags)} ({took})" if fit.flags else f"fits as it is ({took})"


def warn_of_memory(console: Console, config: "TrainConfig", *, others: bool) -> None:
    """Say what a training will take before anything is loaded, and where it does not fit the switch that helps."""
    from spectral_fusion.training.fitting import first_fit, predicted, room_of
    from spectral_fusion.training.memory import GB
    from spectral_fusion.training.processes import processes

    device = processes().device
    kind: Literal["gpu", "cpu"] = "cpu" if device.type == "cpu" else "gpu"
    try:
        found = predicted(config, kind, others=others)
    except InputError:
        return  # the training says it better, when it opens the base
    room = room_of(device)
    largest = sorted(found.phases[found.worst].items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{name} {size / GB:.1f}" for name, size in largest)
    line = f"memory: about {found.peak / GB:.1f} GB at the most, {PHASES[found.worst]} ({parts})"
    console.print(line, highlight=False, soft_wrap=True)
    if found.peak > room:
        fit = first_fit(config, kind, room, others=others)
        helps = f"add {' '.join(fit.flags)}" if fit and fit.flags else "no switch makes it fit; give a smaller base"
        text = f"warning: {room / GB:.1f} GB are free, this training takes about {found.peak / GB:.1f} GB; {helps}"
        console.print(text, style="yellow", highlight=False, soft_wrap=True)
