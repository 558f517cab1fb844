"""Ways of putting several concepts on one base, to be compared by the same pictures and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from spectral_fusion.base.interface import Base, words
from spectral_fusion.concept import Concept
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.lora import Lora
from spectral_fusion.fusion import Reduce, fuse
from spectral_fusion.training.context import TrainedSubject, merged_subjects

Adapter = TrainedSubject
"""One subject, trained by some method; a `Concept` is one."""


class Method(Protocol):
    """One row of the comparison."""

    @property
    def name(self) -> str: ...
    @property
    def adapters(self) -> Sequence[Adapter]: ...
    @property
    def parameters(self) -> int:
        """Trainable numbers of one subject, token embeddings included."""

    @property
    def placeable(self) -> Sequence[Concept]:
        """The subjects as concepts that can be bound to places; empty where this is no such way of fusing."""

    def on(self, base: Base, subjects: Sequence[int]) -> AbstractContextManager[None]:
        """Within the `with` block the base has the subjects of these numbers, and none after it."""


@dataclass(frozen=True)
class Spectral:
    """Concepts fused into the weights, as `fuse` does it."""

    adapters: tuple[Concept, ...]
    reduce: Reduce = "sum"

    @property
    def name(self) -> str:
        return f"spectral {self.reduce}"

    @property
    def parameters(self) -> int:
        concept = self.adapters[0]
        trained = [tensor.numel() for layer in concept.layers.values() for tensor in layer.trained.values()]
        return sum(trained) + sum(rows.numel() for rows in concept.embeddings.values())

    @property
    def placeable(self) -> Sequence[Concept]:
        return self.adapters if self.reduce == "sum" else ()

    @contextmanager
    def on(self, base: Base, subjects: Sequence[int]) -> Iterator[None]:
        concepts = {self.adapters[number]: 1.0 for number in subjects}
        fusion = fuse(base, concepts, reduce=self.reduce, on_overlap="warn")
        try:
            yield
        finally:
            fusion.undo()


@dataclass(frozen=True)
class Loras:
    """Stock LoRAs, their deltas summed in the weights; each at weight one, or at one over their number."""

    adapters: tuple[Lora, ...]
    reduce: Reduce = "sum"

    @property
    def name(self) -> str:
        return f"LoRA {self.reduce}"

    @property
    def parameters(self) -> int:
        return self.adapters[0].parameters

    @property
    def placeable(self) -> Sequence[Concept]:
        return ()

    @contextmanager
    def on(self, base: Base, subjects: Sequence[int]) -> Iterator[None]:
        weight = 1.0 if self.reduce == "sum" else 1 / len(subjects)
        loras = [self.adapters[number].scaled(weight) for number in subjects]
        with merged_subjects(base, loras).present(), words(base, {lora.trigger: lora.embeddings for lora in loras}):
            yield


def check_methods(names: Sequence[str]) -> None:
    """Raises InputError where no method is named, or an unknown one."""
    if unknown := [name for name in names if name not in METHODS]:
        raise InputError(f"method {unknown[0]!r} is unknown; use some of {', '.join(METHODS)}")
    if not names:
        raise InputError(f"no method was named; use some of {', '.join(METHODS)}")


def build_methods(
    names: Sequence[str], concepts: Sequence[Concept], loras: Callable[[], Sequence[Lora]]
) -> list[Method]:
    """The methods of these names, in order.

    Args:
        names: of `METHODS`.
        loras: the same subjects as LoRAs; asked for only where a method needs them.

    Raises:
        InputError: no name, or an unknown one.
    """
    check_methods(names)
    compared = tuple(loras()) if any(METHODS[name][0] is Loras for name in names) else ()
    spectral = tuple(concepts)
    return [
        Spectral(spectral, reduce) if kind is Spectral else Loras(compared, reduce)
        for kind, reduce in (METHODS[name] for name in names)
    ]


METHODS: dict[str, tuple[type[Spectral] | type[Loras], Reduce]] = {
    "spectral-sum": (Spectral, "sum"),
    "spectral-mean": (Spectral, "mean"),
    "lora-sum": (Loras, "sum"),
    "lora-mean": (Loras, "mean"),
}
