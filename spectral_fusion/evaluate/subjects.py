"""Ready lists of subjects, with their prompts; the photos are read from a folder that the user has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from spectral_fusion.errors import InputError
from spectral_fusion.evaluate import dreambench
from spectral_fusion.names import key


@dataclass(frozen=True)
class SubjectList:
    """Subjects of a benchmark.

    Attributes:
        classes: subject -> class word.
        living: class words of living subjects.
        live_prompts, object_prompts: of those, and of the others; `{}` stands for the subject.
        seeds: pictures of each prompt.
    """

    name: str
    classes: Mapping[str, str]
    living: Sequence[str]
    live_prompts: tuple[str, ...]
    object_prompts: tuple[str, ...]
    seeds: int

    def subject(self, concept: str) -> str:
        """The subject that a concept is called after. Raises InputError."""
        known = {key(subject): subject for subject in self.classes}
        if key(concept) not in known:
            near = get_close_matches(key(concept), known, n=1)
            advice = f"did you mean {known[near[0]]}?" if near else f"there are {', '.join(self.classes)}"
            raise InputError(f"{self.name} has no subject {concept!r}; {advice}")
        return known[key(concept)]

    def prompts(self, subject: str) -> tuple[str, ...]:
        """The prompts of one subject."""
        return self.live_prompts if self.classes[subject] in self.living else self.object_prompts

    def shared_prompts(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """The prompts that all of these subjects have, for pictures of several."""
        lists = [self.prompts(subject) for subject in subjects]
        return tuple(prompt for prompt in lists[0] if all(prompt in others for others in lists))

    def settings(self, concepts: Sequence[str]) -> dict[str, object]:
        """What `EvaluateConfig` takes for concepts that are called after these subjects."""
        subjects = {concept: self.subject(concept) for concept in concepts}
        return {
            "prompts": self.shared_prompts([*subjects.values()]),
            "own_prompts": {concept: self.prompts(subject) for concept, subject in subjects.items()},
            "seeds": self.seeds,
        }

    def folders(self, concepts: Sequence[str], photos: Path) -> list[Path]:
        """The folder of photos of each concept: `photos` holds one for each subject. Raises InputError."""
        paths = [photos / self.subject(concept) for concept in concepts]
        if missing := [path for path in paths if not path.is_dir()]:
            raise InputError(
                f"there are no photos in {missing[0]}; give --photos the folder that has one for each subject"
            )
        return paths


SUBJECT_LISTS = {
    "dreambench": SubjectList(
        "dreambench",
        dreambench.CLASSES,
        dreambench.LIVING,
        dreambench.LIVE_PROMPTS,
        dreambench.OBJECT_PROMPTS,
        seeds=4,
    )
}
