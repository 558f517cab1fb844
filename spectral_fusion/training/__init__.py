"""Training: from a folder of pictures to a concept.

`single.train` is the function, `job.train_concept` puts its result into a library.
"""

from typing import TYPE_CHECKING, Any

from spectral_fusion.training.config import ResolvedConfig, TrainConfig

if TYPE_CHECKING:
    from spectral_fusion.training.job import resolve, train_concept
    from spectral_fusion.training.loop import Progress
    from spectral_fusion.training.single import TrainingContext, train

__all__ = ["Progress", "ResolvedConfig", "TrainConfig", "TrainingContext", "resolve", "train", "train_concept"]

_HOMES = {
    "train_concept": "job",
    "resolve": "job",
    "Progress": "loop",
    "TrainingContext": "single",
    "train": "single",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: the command line's help reads `TrainConfig` only."""
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"spectral_fusion.training.{_HOMES[name]}"), name)
