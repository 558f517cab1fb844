"""From runs to tables: made-up runs whose figures are known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from study.judging import Seen
from study.methods.registry import GRADIENT_FUSION, OURS, choose_methods
from study.plan import Plan
from study.results import depth_curves, excess_loss, outcome
from study.runs import Journal, Key, Run
from study.settings import Settings
from study.tables import claims, markdown

SETTINGS = Settings(counts=(3,), seeds=2, seeds_of_few=1, depth_subjects=2)
METHODS = choose_methods(SETTINGS, [OURS, "lora-sum", GRADIENT_FUSION])
PLAN = Plan(SETTINGS, METHODS, {})


def seen(wanted: int, identity: float) -> Seen:
    nearest = [identity if place == wanted else 0.5 for place in range(SETTINGS.slots)]
    return Seen(wanted, 0, 0, similarity=nearest, nearest=nearest, alignment=0.3)


@pytest.fixture
def filled(tmp_path: Path) -> Callable[..., Journal]:
    def fill(losses: dict[str, float], seconds: dict[str, float] | None = None, diverged: str = "") -> Journal:
        """All runs, each identity 0.9 alone give or take, and so much less fused."""
        journal = Journal(tmp_path / "runs.jsonl", "here", lambda _: None)
        for key in PLAN.runs():
            if key.kind == "alone":
                figures = {"megabytes": 0.5, "parameters": 1000.0}
                journal.add(
                    Run(key, "here", "done", {"singles": [seen(key.subject, _alone(key, key.subject))]}, figures)
                )
            elif key.name == diverged and key.seed == 1:
                journal.add(Run(key, "here", "diverged", reason="pictures hold NaN"))
            else:
                parts = [seen(i, _alone(key, i) - losses[key.name] - 0.001 * i) for i in range(3)]
                figures = {"fusing seconds": (seconds or {}).get(key.name, 1.0)}
                journal.add(Run(key, "here", "done", dict.fromkeys(("singles", "pairs", "regions"), parts), figures))
        return journal

    return fill


def _alone(key: Key, subject: int) -> float:
    return 0.9 - 0.05 * subject - 0.02 * key.seed


def test_the_loss_is_taken_of_each_identity_by_itself(filled: Callable[..., Journal]) -> None:
    journal = filled({OURS: 0.1, "lora-sum": 0.3, GRADIENT_FUSION: 0.1})
    ours = outcome(PLAN, journal, METHODS[0], 3)
    lora = outcome(PLAN, journal, METHODS[1], 3)
    assert ours is not None
    assert lora is not None
    assert ours.loss == {(seed, i): pytest.approx(0.1 + 0.001 * i) for seed in range(2) for i in range(3)}
    excess = excess_loss(lora, ours)
    assert excess is not None
    assert excess.mean == pytest.approx(0.2)
    assert excess.half < 1e-6
    assert excess.count == 6
    assert ours.accuracy == dict.fromkeys(ours.loss, 1.0)
    assert ours.megabytes == 0.5


def test_the_claim_holds_where_all_others_lose_more(filled: Callable[..., Journal]) -> None:
    journal = filled({OURS: 0.1, "lora-sum": 0.3, GRADIENT_FUSION: 0.1}, {OURS: 0.001, GRADIENT_FUSION: 1.0})
    first, second, *_ = claims(PLAN, journal)
    assert "does not hold" not in first
    assert "0.101" in first
    assert "not told apart" in second
    assert "0.10%" in second
    assert "**" not in second


def test_it_is_said_plainly_where_the_claim_does_not_hold(filled: Callable[..., Journal]) -> None:
    journal = filled({OURS: 0.3, "lora-sum": 0.1, GRADIENT_FUSION: 0.1}, {OURS: 0.5, GRADIENT_FUSION: 1.0})
    first, second, *_ = claims(PLAN, journal)
    assert "does not hold" in first
    assert "LoRA, sum (-0.200" in first
    assert "**worse**" in second
    assert "**not under**" in second


def test_a_method_that_diverges_stays_in_the_table(filled: Callable[..., Journal]) -> None:
    journal = filled(dict.fromkeys((OURS, "lora-sum", GRADIENT_FUSION), 0.1), diverged="lora-sum")
    found = outcome(PLAN, journal, METHODS[1], 3)
    assert found is not None
    assert (found.sets, found.diverged, len(found.fused)) == (2, 1, 3)
    text = markdown(PLAN, journal, command="it", machine="machine", figures={})
    assert "2, 1 **diverged**" in text


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    empty = Journal(tmp_path / "none.jsonl", "here", lambda _: None)
    text = markdown(PLAN, empty, command="it", machine="machine", figures={}, conclusions="Words of a person.")
    assert "Not finished" in text
    assert "not measured yet" in text
    assert "Words of a person." in text


def test_the_depth_curves_have_every_band(filled: Callable[..., Journal]) -> None:
    curves = depth_curves(PLAN, filled(dict.fromkeys((OURS, "lora-sum", GRADIENT_FUSION), 0.1)))
    assert list(curves) == list(range(SETTINGS.slots))
    assert sum(curves[5]) / len(curves[5]) == pytest.approx(0.875)
