"""Evaluations as the page sees them: a process of its own, and a report in the end."""

import shutil
import time
from pathlib import Path

import pytest

from concepts import make_concept
from spectral_fusion.base.load import open_base
from spectral_fusion.concept import Library
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate import METHODS as KNOWN
from spectral_fusion_app.lab.evaluations import METHODS, EvaluateRequest, Evaluations
from spectral_fusion_app.processes import VerbProcess
from training import draw_photos

HERE = Path("photos")


def test_the_methods_are_those_of_the_command_line() -> None:
    assert set(METHODS) == set(KNOWN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ("rex",)}, "two or more"),
        ({"methods": ()}, "spectral-sum"),
        ({"methods": ("magic",)}, "spectral-sum"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 1000}, "seeds"),
        ({"steps": 10_000}, "steps"),
    ],
)
def test_a_request_out_of_range_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        EvaluateRequest(**{"names": ("rex", "tom"), "folders": (HERE, HERE), "base": "toybox"} | changes)


def test_one_evaluation_runs_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerbProcess, "start", lambda self, arguments: None)
    evaluations = Evaluations(tmp_path / "out", tmp_path / "library")
    request = EvaluateRequest(("rex", "tom"), (HERE, HERE), "toybox")
    started = evaluations.start(request)
    assert evaluations.find(started.id).names == ["rex", "tom"]
    with pytest.raises(InputError, match="no evaluation"):
        evaluations.find("../out")
    monkeypatch.setattr(VerbProcess, "running", True)
    with pytest.raises(InputError, match="another"):
        evaluations.start(request)


@pytest.mark.slow
def test_an_evaluation_ends_with_a_report(tmp_path: Path) -> None:
    library = Library(tmp_path / "library")
    base = open_base("toybox")
    for band, name in enumerate(("rex", "tom")):
        library.add(make_concept(base, name, band=band, targets=("to_q",)))
    folder = draw_photos(tmp_path / "photos", size=(64, 64))
    shutil.copytree(folder, tmp_path / "other")
    evaluations = Evaluations(tmp_path / "out", library.root)
    request = EvaluateRequest(("rex", "tom"), (folder, tmp_path / "other"), "toybox", seeds=1, steps=1)
    evaluation = evaluations.start(request)
    end = time.monotonic() + 200
    while evaluation.process.running and time.monotonic() < end:
        time.sleep(0.2)
    state = evaluation.state()
    assert (state.kind, state.error) == ("finished", "")
    assert evaluation.stage() != "loading"
    figures = evaluation.figures()
    assert figures is not None
    assert [concept["name"] for concept in figures["concepts"]] == ["rex", "tom"]
    assert evaluation.report is not None
    assert "rex + tom" in evaluation.report.read_text(encoding="utf-8")
