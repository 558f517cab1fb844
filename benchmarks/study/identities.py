"""Who the study is about: drawn identities that neither the base, its scorers nor the tuning has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spectral_fusion.atomic import atomic_folder
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.demo import EXAMPLES
from spectral_fusion.toybox.data import HELD_OUT
from spectral_fusion.toybox.draw import write_identity
from spectral_fusion.toybox.world import CLASSES, identity

FIRST, TUNING = 1000, 500_000
SET_SIZE = 100  # numbers between two sets; the shipped examples are below FIRST


@dataclass(frozen=True)
class Subject:
    """An identity of the drawn world."""

    number: int
    class_word: str

    @property
    def name(self) -> str:
        return f"{self.class_word}{self.number}"

    @property
    def trigger(self) -> str:
        return f"<{self.name}>"


def study_subjects(seed: int, count: int) -> list[Subject]:
    """Set number `seed`, in order: the first K of it are fused. Every other one is of one class, the same for all.

    The other half takes turns through the remaining classes.
    """
    return _subjects(FIRST + SET_SIZE * seed, seed, count)


def tuning_subjects(count: int) -> list[Subject]:
    """Identities that learning rates are chosen on; none is in the study."""
    return _subjects(TUNING, 0, count)


def _subjects(first: int, turn: int, count: int) -> list[Subject]:
    shared = CLASSES[turn % len(CLASSES)]
    others = [name for name in CLASSES if name != shared]
    words = [others[(turn + place // 2) % len(others)] if place % 2 else shared for place in range(count)]
    subjects = [Subject(first + place, word) for place, word in enumerate(words)]
    shipped = {example.number for example in EXAMPLES.values()}
    assert not any(subject.number in shipped or subject.number >= HELD_OUT for subject in subjects)
    return subjects


def pairs(count: int, limit: int) -> list[tuple[int, int]]:
    """Which of `count` concepts share a picture: adjacent ones, of different classes, and next but one, of the same."""
    different = [(place, place + 1) for place in range(0, count - 1, 2)]
    same = [(place, place + 2) for place in range(0, count - 2, 4)]
    return sorted(different + same)[:limit]


def photos(subject: Subject, root: Path, count: int) -> ImageFolder:
    """The photos of a subject, with captions and masks; drawn into `root` where they are not there yet."""
    folder = root / f"{subject.name}-{count}"
    if not folder.is_dir():
        with atomic_folder(folder) as part:
            write_identity(identity(subject.number, subject.class_word), part, count=count, seed=subject.number)
    return ImageFolder.scan(folder)
