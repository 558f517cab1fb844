"""The figures as Markdown, for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from spectral_fusion.evaluate import Evaluation
from spectral_fusion.report import tables
from spectral_fusion.report.tables import HeatMap, Table


def markdown(evaluation: Evaluation, heading: str, command: str) -> str:
    """All tables of an evaluation.

    Args:
        command: what writes this text again.
    """
    verdicts = [
        [verdict.claim, verdict.measured, "yes" if verdict.holds else "**no**"]
        for verdict in tables.verdicts(evaluation)
    ]
    lines = [f"# {heading}", "", f"Written by `{command}`.", ""]
    lines += _table(Table("What should hold for the first method", ["claim", "measured", "holds"], verdicts))
    lines += _table(tables.one_in_picture(evaluation)) + _table(tables.all_in_picture(evaluation))
    for method in evaluation.methods:
        lines += _table(tables.by_concept(evaluation, method))
    for heat in tables.interference(evaluation):
        lines += _table(_as_table(heat))
    facts = {**evaluation.settings, **evaluation.facts}
    lines += _table(Table("How it was made", ["setting", "value"], [[key, str(facts[key])] for key in facts]))
    return "\n".join(lines)


def _as_table(heat: HeatMap) -> Table:
    rows = [[name, *(f"{v:.{heat.digits}f}" for v in row)] for name, row in zip(heat.names, heat.values, strict=True)]
    return Table(heat.title, ["", *heat.names], rows, heat.note)


def _table(table: Table) -> list[str]:
    lines = [f"## {_plain(table.title)}", ""]
    if table.note:
        lines += [_plain(table.note), ""]
    return [*lines, _row(table.columns), _row(["---"] * len(table.columns)), *map(_row, table.rows), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, inside a table too."""
    return text.replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
