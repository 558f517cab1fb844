"""Verbs killed before their calls to the file system: the library lists, bands are disjoint, nothing is left over.

Here a few kills of each verb; `make kills` does all of them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kills.py")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a kill ends a child of this process")
def test_nothing_is_lost_by_a_kill_at_any_call() -> None:
    """In a process of its own: one that has run torch on several threads must not be forked."""
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--most", "5"]
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kills"] >= 60
