"""Versions with known holes are neither allowed nor tested. The list is of November 2026; CI asks for newer ones."""

import re
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]
MENDED = {"pillow": "12.3.0", "gradio": "6.20.0"}  # the first versions in which all known advisories are mended
SERVER = ("starlette", "python-multipart")  # gradio's, which read what strangers send


def pinned() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(";")[0].strip().split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.lower(): Version(version) for name, version in pairs}


@pytest.mark.parametrize("name", MENDED)
def test_versions_with_known_holes_are_not_allowed(name: str) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (lowest,) = re.findall(rf'"{name}>=([\d.]+)', text, re.IGNORECASE)
    assert pinned()[name] >= Version(MENDED[name])
    assert Version(lowest) >= Version(MENDED[name])


@pytest.mark.parametrize("name", SERVER)
def test_what_reads_requests_is_pinned(name: str) -> None:
    assert name in pinned()
