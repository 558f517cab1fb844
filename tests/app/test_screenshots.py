"""The screenshots of the documentation: none that the script does not take, every state in every width, and small."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

from screenshot_states import PLACES, STATES
from screenshots import FOLDER, HEIGHTS, MOST, SCHEMES


def names(widths: tuple[int, ...], schemes: tuple[str, ...]) -> set[str]:
    return {
        f"{place}-{state}-{width}-{scheme}.webp"
        for place in PLACES
        for state in STATES
        for width in widths
        for scheme in schemes
    }


def test_every_place_is_shown_in_every_state_on_every_width_and_in_both_schemes() -> None:
    there = {path.name for path in FOLDER.iterdir()}
    assert there <= names(tuple(HEIGHTS), SCHEMES)
    assert names(tuple(HEIGHTS), ("light",)) <= there
    assert names((390, 1440), ("dark",)) <= there


def test_they_take_little_room() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST
