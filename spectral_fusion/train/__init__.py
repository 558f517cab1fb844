"""Training: from a folder of pictures to a concept.

`training.train` is the function, `job.train_concept` puts its result into a library.
"""

from typing import TYPE_CHECKING, Any

from spectral_fusion.train.config import TrainConfig

if TYPE_CHECKING:
    from spectral_fusion.train.job import train_concept
    from spectral_fusion.train.loop import Progress
    from spectral_fusion.train.training import TrainingContext, train

__all__ = ["Progress", "TrainConfig", "TrainingContext", "train", "train_concept"]

_HOMES = {"train_concept": "job", "Progress": "loop", "TrainingContext": "training", "train": "training"}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: the command line's help reads `TrainConfig` only."""
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"spectral_fusion.train.{_HOMES[name]}"), name)
