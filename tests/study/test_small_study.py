"""A whole study in small, every method in it."""

from pathlib import Path

import pytest

from concepts import same_weights, weights_of
from study.methods.registry import all_methods
from study.plan import Plan
from studying import SMALLEST, laboratory


@pytest.mark.slow
def test_every_method_goes_through_and_the_base_is_as_before(tmp_path: Path) -> None:
    lab, told = laboratory(tmp_path)
    before = weights_of(lab.pipeline)
    plan = Plan(SMALLEST, list(all_methods(SMALLEST).values()), {})
    assert lab.conduct(plan) == 0
    journal = lab.journal()
    assert {run.key for run in journal} == set(plan.runs())
    assert [run for run in journal if run.status != "done"] == []
    assert same_weights(before, weights_of(lab.pipeline))
    told.clear()
    assert lab.conduct(plan) == 0
    assert told == []
