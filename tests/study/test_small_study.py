"""A whole study in small: rates, every method, the report."""

import os
from pathlib import Path

import pytest
from PIL import Image

from concepts import same_weights, weights_of
from study.families import FAMILIES
from study.methods.registry import all_methods
from study.plan import Plan
from study.report import write_report
from study.tables import titled
from study.tuning import tune
from studying import SMALLEST, laboratory


@pytest.mark.slow
def test_every_method_goes_through_and_the_base_is_as_before(tmp_path: Path) -> None:
    lab, told = laboratory(tmp_path / "study")
    before = weights_of(lab.base)
    plan = Plan(SMALLEST, list(all_methods(SMALLEST).values()), {})
    assert lab.conduct(plan) == 0
    journal = lab.journal()
    assert {run.key for run in journal} == set(plan.runs())
    assert [run for run in journal if run.status != "done"] == []
    assert same_weights(before, weights_of(lab.base))
    told.clear()
    assert lab.conduct(plan) == 0
    assert told == []

    written = write_report(plan, journal, lab.root, tmp_path / "report", machine="a machine")
    text = written[0].read_text(encoding="utf-8")
    assert all(titled(method) in text for method in plan.methods)
    assert "Not finished" not in text
    for path in written[1:]:
        with Image.open(path) as picture:
            assert picture.width > 100
        assert path.name in text


def test_rates_are_chosen_once_and_kept(tmp_path: Path) -> None:
    lab, told = laboratory(tmp_path)
    families = [FAMILIES["additive"], FAMILIES["joint"]]
    rates = tune(lab, families)
    assert rates.scores.keys() == {"additive"}
    best = max(rates.scores["additive"].values())
    assert rates.scores["additive"][rates.factors["additive"]] == best
    told.clear()
    assert tune(lab, families) == rates
    assert told == []
    assert os.listdir(tmp_path / "concepts") == ["additive"]
