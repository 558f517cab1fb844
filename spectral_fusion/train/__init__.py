"""Training: `TrainConfig` and `train_concept`, from a folder of pictures to a concept."""

from typing import TYPE_CHECKING, Any

from spectral_fusion.train.config import TrainConfig

if TYPE_CHECKING:
    from spectral_fusion.train.job import train_concept
    from spectral_fusion.train.loop import Progress

__all__ = ["Progress", "TrainConfig", "train_concept"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: the command line's help reads `TrainConfig` only."""
    if name == "train_concept":
        from spectral_fusion.train.job import train_concept

        return train_concept
    if name == "Progress":
        from spectral_fusion.train.loop import Progress

        return Progress
    raise AttributeError(name)
