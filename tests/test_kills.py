"""Verbs killed before their calls to the file system, and on bad disks: nothing is lost, nothing is left over.

Here a few kills and troubles of each verb; `make kills` does all of them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def ended_well(script: str, *options: str) -> dict[str, int]:
    """Run one of the scripts, in a process of its own: one that has run torch on several threads must not be forked."""
    command = [sys.executable, str(HERE / script), *options]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a kill ends a child of this process")
def test_nothing_is_lost_by_a_kill_at_any_call() -> None:
    assert ended_well("kills.py", "--most", "5")["kills"] >= 60


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="troubles are met in children of this process")
def test_bad_disks_are_one_line_and_lose_nothing() -> None:
    assert (
        ended_well("disks.py", "--most", "2", "--verb", "add", "--verb", "remove", "--verb", "export")["troubles"] >= 24
    )
