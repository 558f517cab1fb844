"""Means, intervals and pairs against what can be worked out by hand."""

import math

import pytest

from study.statistics import estimate_difference, estimate_mean


def test_the_interval_is_students() -> None:
    found = estimate_mean([1.0, 2.0, 3.0])
    assert found.mean == pytest.approx(2.0)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)  # t at 0.975 with 2 degrees, deviation 1
    assert (found.low, found.high) == (pytest.approx(2 - found.half), pytest.approx(2 + found.half))


def test_pairing_takes_out_what_identities_differ_by() -> None:
    hard, easy = {"a": 0.1, "b": 0.9, "c": 0.5}, {"a": 0.2, "b": 1.0, "c": 0.6}
    found = estimate_difference(easy, hard)
    assert found.mean == pytest.approx(0.1)
    assert found.half < 1e-9
    assert estimate_mean(list(easy.values())).half > 0.5


def test_only_what_both_have_is_compared() -> None:
    assert estimate_difference({"a": 1.0, "b": 5.0}, {"a": 0.0, "c": 9.0}).count == 1
    with pytest.raises(ValueError, match="no values"):
        estimate_difference({"a": 1.0}, {"b": 1.0})


def test_one_value_says_nothing_of_its_spread_and_equal_values_have_none() -> None:
    assert math.isinf(estimate_mean([0.5]).half)
    assert estimate_mean([0.5, 0.5]).half == 0
