"""Settings of one evaluation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from spectral_fusion.errors import InputError

SUBJECT = "{}"
PROMPTS = ("a photo of a {} on grass", "a photo of a {} in the snow", "a photo of a {} in a room")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How pictures are sampled.

    Raises:
        InputError: a setting is out of its range, or a prompt has no place for the subject.
    """

    prompts: tuple[str, ...] = PROMPTS
    """`{}` stands for the subject: `<rex> dog`, or all of them joined."""
    seed: int = 0
    """The first sampling seed."""
    seeds: int = 3
    """Pictures of each prompt, from consecutive seeds."""
    num_inference_steps: int = 20
    guidance_scale: float = 5.0
    sampler: str = "DPM++ 2M"

    def __post_init__(self) -> None:
        for name, low in (("seed", 0), ("seeds", 1), ("num_inference_steps", 1), ("guidance_scale", 0)):
            if not getattr(self, name) >= low:
                raise InputError(f"{name} is {getattr(self, name)}; give a number from {low} up")
        if not self.prompts:
            raise InputError("there are no prompts; give at least one")
        for prompt in self.prompts:
            if prompt.count(SUBJECT) != 1:
                raise InputError(f"prompt {prompt!r} does not hold {{}} once; write {{}} where the subject goes")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
