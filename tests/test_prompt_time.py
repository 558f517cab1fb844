"""Reading a prompt takes time in proportion to its length, whatever brackets it has."""

import time

import pytest

from spectral_fusion.base.prompt import weigh
from spectral_fusion.base.turns import prompts_by_step, unknown_words


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        "(" * 60_000 + "a",
        "(a)" * 20_000,
        "[a " * 20_000 + "]" * 20_000,
        "_" * 60_000,
        "[" + ":" * 60_000,
        "{|" * 30_000,
    ],
)
def test_brackets_take_no_time(text: str) -> None:
    def read(words: str) -> float:
        start = time.process_time()
        weigh(words)
        prompts_by_step(words, 2)
        unknown_words(words)
        return time.process_time() - start

    read("a")  # what is imported or compiled once is no part of it
    assert min(read(text) for _ in range(2)) < 1


def test_nested_brackets_multiply_from_the_outside_in() -> None:
    assert weigh("(a [b (c:2)])") == [("a ", 1.1), ("b ", pytest.approx(1.0)), ("c", pytest.approx(2.0))]
