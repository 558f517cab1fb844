"""Small JSON files about runs: written whole or not at all, and no trouble to anybody else when one is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spectral_fusion.atomic import atomic_file


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record; on a full disk the one before stays."""
    with atomic_file(path) as part:
        part.write_text(json.dumps(record), encoding="utf-8")


def read_record(path: Path) -> dict[str, Any] | None:
    """A record; None where there is none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
