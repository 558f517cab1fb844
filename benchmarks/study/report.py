"""The study's report and its figures, written from the runs."""

from __future__ import annotations

import shutil
from pathlib import Path

from spectral_fusion.atomic import atomic_file
from study.conduct import RUNS
from study.figures import draw_counts, draw_depth, draw_failures
from study.plan import Plan
from study.results import outcomes
from study.runs import Journal
from study.tables import markdown
from study.tuning import RATES

NAME, CONCLUSIONS = "fusion-study", "conclusions.md"
COMMAND = "python benchmarks/fusion_study.py report"
SHEET = 8
"""K of the fusions whose failures are shown, or the largest below that is measured."""


def write_report(plan: Plan, journal: Journal, root: Path, folder: Path, *, machine: str) -> list[Path]:
    """Write Markdown and figures into `folder`; returns what was written.

    A folder beside them keeps what they are made of: the runs, the rates, and in `conclusions.md` a person's words.

    Args:
        root: of the study: photos and pictures are read there. It may be the folder that was kept.
        machine: what it ran on, in a line.
    """
    kept = folder / NAME
    kept.mkdir(parents=True, exist_ok=True)
    for name in (RUNS, RATES):
        if (root / name).is_file() and root.resolve() != kept.resolve():
            shutil.copyfile(root / name, kept / name)
    counts = [count for count in plan.settings.counts if outcomes(plan, journal, count)]
    shown = max((count for count in counts if count <= SHEET), default=0)
    drawn: dict[str, Path | None] = {
        "identity of fused concepts by K": draw_counts(plan, journal, folder / f"{NAME}-count.png"),
        "identity of a concept alone by its band": draw_depth(plan, journal, folder / f"{NAME}-depth.png"),
        f"the worst pictures at K = {shown}: photo, alone, fused": draw_failures(
            plan, journal, root, folder / f"{NAME}-failures.png", shown
        ),
    }
    figures = {caption: path for caption, path in drawn.items() if path is not None}
    words = kept / CONCLUSIONS
    text = markdown(
        plan,
        journal,
        command=COMMAND,
        machine=machine,
        figures={caption: path.name for caption, path in figures.items()},
        conclusions=words.read_text(encoding="utf-8") if words.is_file() else "",
    )
    with atomic_file(folder / f"{NAME}.md") as part:
        part.write_text(text, encoding="utf-8")
    return [folder / f"{NAME}.md", *figures.values()]
