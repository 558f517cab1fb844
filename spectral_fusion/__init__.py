"""spectral-fusion: several subjects in one picture, each still itself.

These names are all that a script needs. Each is imported when it is first used, so that `--help` does without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectral_fusion.base.interface import Base
    from spectral_fusion.base.load import open_base
    from spectral_fusion.base.regions import Region
    from spectral_fusion.concept import Concept, Library
    from spectral_fusion.concept.images import ImageFolder
    from spectral_fusion.errors import InputError
    from spectral_fusion.fusion import Fusion, fuse
    from spectral_fusion.generation import GenerateConfig, generate
    from spectral_fusion.spectral import Band
    from spectral_fusion.training import ResolvedConfig, TrainConfig, TrainingContext, resolve, train, train_concept

__version__ = "0.1.0"

__all__ = [
    "Band",
    "Base",
    "Concept",
    "Fusion",
    "GenerateConfig",
    "ImageFolder",
    "InputError",
    "Library",
    "Region",
    "ResolvedConfig",
    "TrainConfig",
    "TrainingContext",
    "fuse",
    "generate",
    "open_base",
    "resolve",
    "train",
    "train_concept",
]

_HOMES = {
    "base.interface": ("Base",),
    "base.load": ("open_base",),
    "base.regions": ("Region",),
    "concept": ("Concept", "Library"),
    "concept.images": ("ImageFolder",),
    "errors": ("InputError",),
    "fusion": ("Fusion", "fuse"),
    "generation": ("GenerateConfig", "generate"),
    "spectral": ("Band",),
    "training": ("ResolvedConfig", "TrainConfig", "TrainingContext", "resolve", "train", "train_concept"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"spectral_fusion.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
