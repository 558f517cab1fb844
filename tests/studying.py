"""A study so small that it takes seconds: the tiny base, scorers that see colours, two steps of everything."""

from pathlib import Path

from judging import ColourScorers
from study.conduct import Laboratory
from study.settings import Settings
from tiny import tiny_base

SMALLEST = Settings(
    counts=(2,),
    seeds=1,
    seeds_of_few=1,
    few=2,
    slots=4,
    rank=2,
    steps=2,
    batch_size=1,
    distillation_prompts=1,
    photos=2,
    prompts=("a photo of a {}",),
    pictures=1,
    num_inference_steps=2,
    depth_subjects=1,
    tuning_subjects=2,
    tuning_factors=(0.5, 1.0),
    fusion_pictures=1,
    fusion_inference_steps=2,
    fusion_iterations=3,
)


def laboratory(root: Path, settings: Settings = SMALLEST) -> tuple[Laboratory, list[str]]:
    """A laboratory, and what it will have told."""
    told: list[str] = []
    return Laboratory(root, tiny_base(), ColourScorers(), settings, told.append), told
