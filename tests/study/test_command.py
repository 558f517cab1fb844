"""The command: what it lists, and how it refuses."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import fusion_study
from judging import ColourScorers
from spectral_fusion import toybox
from spectral_fusion.base import load
from spectral_fusion.errors import InputError
from spectral_fusion.toybox import scorers  # noqa: F401  # so that it is there to be replaced
from study import settings
from studying import SMALLEST
from tiny import tiny_base


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command on the tiny base, with the smallest settings."""
    monkeypatch.setattr(load, "open_base", lambda base: tiny_base())
    monkeypatch.setattr(toybox, "scorers", ColourScorers())
    monkeypatch.setattr(settings, "Settings", lambda: SMALLEST)


def invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(fusion_study.app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_tune_run_and_report_follow_one_another(small: None, tmp_path: Path) -> None:
    out, chosen = tmp_path / "study", ("--method", "spectral-sum")
    listed = invoke("run", "--dry-run", "--no-depth", "--out", out, *chosen)
    assert "3 runs are left" in listed
    assert not (out / "runs.jsonl").exists()
    assert "additive: rates times" in invoke("tune", "--out", out, *chosen)
    assert "3 runs are left" in invoke("run", "--no-depth", "--hours", "-1", "--out", out, *chosen)
    assert "all runs are done" in invoke("run", "--no-depth", "--out", out, *chosen)
    assert "0 runs are left" in invoke("run", "--dry-run", "--no-depth", "--out", out, *chosen)
    report = tmp_path / "report"
    invoke("report", "--out", out, "--to", report, *chosen)
    text, sheet = report / "fusion-study.md", report / "fusion-study-failures.png"
    before = text.read_text(encoding="utf-8"), sheet.read_bytes()
    assert "spectral, top bands, sum" in before[0]
    text.unlink()
    invoke("report", "--out", report / "fusion-study", "--to", report, *chosen)
    assert (text.read_text(encoding="utf-8"), sheet.read_bytes()) == before, "what was kept gives the report again"


def test_an_unknown_method_is_refused(small: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'sum' is unknown"):
        CliRunner().invoke(fusion_study.app, ["run", "--method", "sum", "--out", str(tmp_path)], catch_exceptions=False)


def test_bad_input_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["fusion_study.py", "run", "--count", "1"])
    with pytest.raises(SystemExit) as ended:
        fusion_study.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: counts are (1,)")
