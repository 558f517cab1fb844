"""Settings of the study: everything that its results depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

from spectral_fusion.errors import InputError

PROMPTS = ("a photo of a {} on grass", "a picture of a {} in the snow")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One study. Two studies of equal settings on equal bases share their runs.

    Raises:
        InputError: a setting that cannot be used.
    """

    counts: tuple[int, ...] = (2, 3, 5, 8, 16)
    """How many concepts are fused: K."""
    seeds: int = 3
    """Sets of identities; also the seed of the trainings."""
    seeds_of_most: int = 1
    """As many sets only for K beyond `many`, which cost the most."""
    many: int = 8
    seeds_of_few: int = 6
    """At least as many sets for K up to `few`, where methods differ less than identities do; not for variants."""
    few: int = 3
    slots: int = 16
    """Concepts that the base is divided among."""
    rank: int = 4
    """Of an additive adapter; the others get as many trainable numbers as that, or as many as fit."""
    steps: int = 120
    batch_size: int = 4
    distillation_prompts: int = 32
    photos: int = 6
    prompts: tuple[str, ...] = PROMPTS
    pictures: int = 2
    """Of each prompt, from consecutive seeds."""
    pairs: int = 4
    """At most so many pairs of concepts are drawn in one picture."""
    num_inference_steps: int = 15
    guidance_scale: float = 5.0
    sampler: str = "DPM++ 2M"
    depth_subjects: int = 3
    """Identities that are trained in every band."""
    tuning_subjects: int = 2
    tuning_factors: tuple[float, ...] = (0.3, 1.0, 1.7, 3.0, 5.0, 9.0)
    """What the learning rates are multiplied by, to choose from."""
    fusion_pictures: int = 4
    """Of each concept, whose layer inputs the methods that need data see."""
    fusion_inference_steps: int = 10
    fusion_iterations: int = 100
    """Of L-BFGS, for each layer."""

    def __post_init__(self) -> None:
        for name in (
            "seeds",
            "seeds_of_few",
            "slots",
            "rank",
            "steps",
            "pictures",
            "photos",
            "pairs",
            "num_inference_steps",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a whole number from 1 up")
        if not self.counts or not 2 <= min(self.counts) <= max(self.counts) <= self.slots:
            raise InputError(f"counts are {self.counts}; give numbers from 2 to {self.slots} concepts")
        if not self.prompts or any(prompt.count("{}") != 1 for prompt in self.prompts):
            raise InputError(f"prompts are {self.prompts}; give at least one, each with {{}} for the subject")

    def seeds_for(self, count: int, *, compared: bool) -> range:
        """The sets of identities that K = `count` is measured on.

        Args:
            compared: by a method of the comparison, not by a bound or a variant of ours.
        """
        if count > self.many:
            return range(min(self.seeds, self.seeds_of_most))
        return range(max(self.seeds, self.seeds_of_few) if compared and count <= self.few else self.seeds)

    @cached_property
    def digest(self) -> str:
        """A hash of what a single run depends on: not of which K, how many seeds, or how rates were searched."""
        scope = {"counts", "seeds", "seeds_of_most", "many", "seeds_of_few", "few", "depth_subjects"}
        scope |= {"tuning_subjects", "tuning_factors"}
        values = {name: value for name, value in asdict(self).items() if name not in scope}
        values["rehearsal_prompts"] = values.pop("distillation_prompts")  # its name when the kept runs were made
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
