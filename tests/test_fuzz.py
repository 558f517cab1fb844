"""The doors under structure-aware fuzzing, for seconds; `make fuzz` goes on for hours. Only InputError may come out."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing import KINDS, run

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
