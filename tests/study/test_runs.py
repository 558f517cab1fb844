"""The record of runs: kept, continued, damaged, and of several studies in one file."""

from pathlib import Path

import pytest

from fusion_study import RESULTS
from judging import ColourScorers
from spectral_fusion.base.load import open_base
from study.conduct import RUNS, Laboratory
from study.judging import Seen
from study.runs import Journal, Key, Run
from study.settings import Settings

SEEN = Seen(wanted=1, prompt=0, seed=3, similarity=[0.1, 0.8], nearest=[0.2, 0.9], alignment=0.4)
KEY = Key("fused", "lora-sum", 0, 2)


def done(key: Key = KEY, study: str = "here") -> Run:
    return Run(key, study, "done", {"singles": [SEEN]}, {"seconds": 1.5})


def journal(path: Path, study: str = "here") -> tuple[Journal, list[str]]:
    told: list[str] = []
    return Journal(path, study, told.append), told


def test_a_run_is_read_as_it_was_written() -> None:
    assert Run.from_line(done().to_line()) == done()


def test_the_published_runs_are_those_of_the_default_settings(tmp_path: Path) -> None:
    runs = [Run.from_line(line) for line in (RESULTS / "fusion-study" / RUNS).read_text(encoding="utf-8").splitlines()]
    laboratory = Laboratory(tmp_path, open_base("toybox"), ColourScorers(), Settings())
    assert {run.study for run in runs} == {laboratory.digest}


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    first, _ = journal(tmp_path / "runs.jsonl")
    first.add(done())
    second, told = journal(tmp_path / "runs.jsonl")
    assert list(second) == [done()]
    assert KEY in second
    assert told == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: line.replace("singles", "pictures"),
        lambda line: line.replace('"done"', '"begun"'),
        lambda line: line.replace('"wanted"', '"unwanted"'),
        lambda line: "\x00\x00",
        lambda line: "[1, 2]",
    ],
)
def test_a_damaged_line_is_told_and_taken_out_and_the_others_stay(tmp_path: Path, damage) -> None:
    path, other = tmp_path / "runs.jsonl", Key("alone", "lora", 1, 4, 4)
    path.write_text(f"{damage(done().to_line())}\n{done(other).to_line()}\n", encoding="utf-8")
    found, told = journal(path)
    assert [run.key for run in found] == [other]
    assert len(told) == 1
    assert "line 1" in told[0]
    found.add(done())
    again, told = journal(path)
    assert {run.key for run in again} == {KEY, other}
    assert told == []


def test_a_line_that_was_cut_off_by_a_kill_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(done().to_line(), encoding="utf-8")  # whole, but for its end of line
    found, _ = journal(path)
    found.add(done(Key("fused", "lora-sum", 1, 2)))
    assert len(list(journal(path)[0])) == 2


def test_runs_of_other_settings_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    journal(path)[0].add(done())
    other, _ = journal(path, "there")
    assert KEY not in other
    other.add(done(study="there"))
    assert list(journal(path)[0]) == [done()]


def test_the_last_of_two_lines_of_a_run_counts(tmp_path: Path) -> None:
    found, _ = journal(tmp_path / "runs.jsonl")
    found.add(Run(KEY, "here", "diverged", reason="the loss is nan"))
    found.add(done())
    assert journal(tmp_path / "runs.jsonl")[0][KEY] == done()


def test_figures_that_are_not_finite_are_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Run(KEY, "here", "done", {"singles": [SEEN]}, {"seconds": float("nan")}).to_line()


def test_the_nearest_photo_is_looked_for_among_those_who_are_there() -> None:
    seen = Seen(0, 0, 0, similarity=[0.5, 0.4, 0.6], nearest=[0.7, 0.6, 0.9], alignment=0.0)
    assert seen.is_right(2)
    assert not seen.is_right(3)
