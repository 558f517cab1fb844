"""How long things take on this machine, measured on a few."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from spectral_fusion.base.attach import smallest_directions
from spectral_fusion.training.model import target_layers
from spectral_fusion.training.single import TrainingContext
from study.conduct import Laboratory
from study.families import OWN
from study.identities import tuning_subjects
from study.methods.least_squares import least_squares_delta
from study.painting import Request, paint
from study.plan import Costs
from study.training import Job, make_recipe, train

STEPS, PICTURES = 12, 16


def measure_costs(laboratory: Laboratory) -> Costs:
    """A few steps, pictures and one layer's fusion with data, timed; nothing is kept."""
    settings, base = replace(laboratory.settings, steps=STEPS), laboratory.base
    job = Job(OWN, tuple(tuning_subjects(1)), 0, 0)
    recipe = make_recipe(base, job, laboratory.shelf.folders(job), settings)
    step = train(base, recipe, {}, TrainingContext())[1] / STEPS
    requests = [Request(settings.prompts[0].replace("{}", "thing"), seed) for seed in range(PICTURES)]
    picture = _seconds(lambda: paint(base, requests, settings)) / PICTURES
    weights = [layer.weight for layer in target_layers(base, recipe.config).values()]
    width = smallest_directions(weights)
    inputs = torch.randn(width, width, generator=torch.Generator().manual_seed(0))
    solve = _seconds(lambda: least_squares_delta([inputs], [inputs @ inputs.T], settings.fusion_iterations))
    return Costs(step, picture, solve * len(weights))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
