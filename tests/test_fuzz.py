"""The doors under structure-aware fuzzing, for seconds; `make fuzz` goes on for hours. Only InputError may come out."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz_lane import GOALS, KINDS, go_on, read_ledger, run

COUNTS = {"concepts": 150, "pictures": 150, "settings": 300, "prompts": 300, "texts": 200}


@pytest.mark.parametrize("kind", KINDS)
def test_seeded_inputs_are_read_or_refused(kind: str) -> None:
    result = run(kind, COUNTS[kind])
    assert result["failed"] == 0, result["first"][0]
    assert result["slowest"] < 2


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(source=st.randoms(use_true_random=False))
def test_what_hypothesis_chooses_is_read_or_refused(kind: str, source: random.Random) -> None:
    make, attempt = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        attempt(make(source), Path(folder))


def test_the_long_lane_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GOALS, "texts", 25)
    monkeypatch.setattr("fuzz_lane.CHUNK", 10)
    ledger = tmp_path / "fuzz.jsonl"
    next(go_on(ledger, 3, 60, ["texts"]))
    with ledger.open("a") as file:
        file.write('{"kind": "te')  # cut off by a kill
        file.write("\n")
    assert [record["first_number"] for record in go_on(ledger, 3, 60, ["texts"])] == [10, 20]
    assert sum(record["tried"] for record in read_ledger(ledger)) == 25
    assert list(go_on(ledger, 3, 60, ["texts"])) == []
