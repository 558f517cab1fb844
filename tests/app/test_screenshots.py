"""The screenshots of the documentation: none that the script does not take, every state in every width, and small."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

from screenshot_states import PLACES, STATES
from screenshots import FOLDER, HEIGHTS, MOST, SCHEMES


def test_every_place_is_shown_in_every_state_on_every_width_and_in_both_schemes() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        f"{place}-{state}-{width}-{scheme}.webp"
        for place in PLACES
        for state in STATES
        for width in HEIGHTS
        for scheme in SCHEMES
    }


def test_they_take_little_room() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST
