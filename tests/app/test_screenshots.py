"""The screenshots of the documentation are all there, and small."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

from screenshot_states import PLACES, STATES
from screenshots import FOLDER, HEIGHTS, MOST, SCHEMES


def test_every_place_is_shown_in_every_state_width_and_scheme() -> None:
    wanted = {
        f"{place}-{state}-{width}-{scheme}.webp"
        for place in PLACES
        for state in STATES
        for width in HEIGHTS
        for scheme in SCHEMES
    }
    assert {path.name for path in FOLDER.iterdir()} == wanted


def test_they_take_little_room() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST
