"""Settings of one evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from spectral_fusion.base.default import COMPOSITE, DETAIL
from spectral_fusion.errors import InputError
from spectral_fusion.settings import CHECKED, MOST_PICTURES, NonNegative, Seed, Share, Words, checked

SUBJECT = "{}"
PROMPTS = ("a photo of a {} on grass", "a photo of a {} in the snow", "a photo of a {} in a room")


@checked
@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EvaluateConfig:
    """How pictures are sampled.

    Raises:
        InputError: a setting is not of its type or out of its range, or a prompt has no place for the subject.
    """

    prompts: Words = PROMPTS
    """`{}` stands for the subject: `<rex> dog`, or all of them joined."""
    own_prompts: Mapping[str, Words] = field(default_factory=dict)
    """For a concept, by name, the prompts of its pictures without others, instead of `prompts`."""
    seed: Seed = 0
    """The first sampling seed."""
    seeds: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 3
    """Pictures of each prompt, from consecutive seeds."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    guidance_scale: NonNegative = 5.0
    sampler: str = "DPM++ 2M"
    detail: Share = DETAIL
    """Part of the steps that are done again for each subject in its own place; 0 for none."""
    composite: Share = COMPOSITE
    """Part of the steps in which the ground is drawn again round subjects that were drawn apart; 0 for none."""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise InputError("there are no prompts; give at least one")
        for name, own in self.own_prompts.items():
            if not own:
                raise InputError(f"there are no prompts for {name!r}; give at least one, or leave it out")
        for prompt in (*self.prompts, *(prompt for own in self.own_prompts.values() for prompt in own)):
            if prompt.count(SUBJECT) != 1:
                raise InputError(f"prompt {prompt!r} does not hold {{}} once; write {{}} where the subject goes")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
