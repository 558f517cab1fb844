"""Writes a benchmark's table under docs/results, with the machine, the versions and the date."""

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
PACKAGES = ("torch", "diffusers", "transformers", "peft")


def write_report(
    name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], remarks: str, *, save: bool = True
) -> None:
    """Print a Markdown report and, if `save`, write it to docs/results/NAME.md.

    Args:
        columns: headings; the first column names the row, the others are numbers.
        remarks: what was run and how to read it, below the table.
    """
    table = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in table]
    text = "\n".join([f"# {title}", "", *lines, "", remarks.strip(), "", f"{machine()}.", ""])
    print(text)
    if save:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")


def machine() -> str:
    """Processor, cores, memory, accelerator, versions and date in one line."""
    parts = [
        _processor(),
        f"{os.cpu_count()} cores, {torch.get_num_threads()} of them used",
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
    ]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts += [f"Python {platform.python_version()}", *(f"{package} {version(package)}" for package in PACKAGES)]
    return ", ".join([*parts, datetime.date.today().isoformat()])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
