"""The journal of a job: what another process reads while it runs and after it ended."""

import json
from pathlib import Path

import pytest

from spectral_fusion.errors import InputError
from spectral_fusion.journal import Journal, read_journal


def test_what_is_written_can_be_read_while_the_job_runs(tmp_path: Path) -> None:
    path = tmp_path / "job" / "journal.jsonl"
    assert read_journal(path) == []
    with Journal(path) as journal:
        journal.write(step=1, loss=0.5)
        (entry,) = read_journal(path)
        assert (entry.data, entry.outcome) == ({"step": 1, "loss": 0.5}, None)
        journal.write(step=2, loss=0.4)
    *steps, last = read_journal(path)
    assert [entry.data["step"] for entry in steps] == [1, 2]
    assert last.outcome == "finished"
    assert last.time >= steps[0].time


@pytest.mark.parametrize(
    ("error", "outcome", "words"),
    [
        (InputError("no pictures; give some"), "failed", "no pictures; give some"),
        (ZeroDivisionError("a bug"), "failed", "ZeroDivisionError: a bug"),
        (KeyboardInterrupt(), "stopped", None),
    ],
)
def test_the_last_line_says_how_it_ended(tmp_path: Path, error: BaseException, outcome: str, words: str | None) -> None:
    with pytest.raises(type(error)), Journal(tmp_path / "journal.jsonl"):
        raise error
    (entry,) = read_journal(tmp_path / "journal.jsonl")
    assert (entry.outcome, entry.data.get("error")) == (outcome, words)


def test_a_line_that_a_kill_cut_off_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps({"time": 1.0, "data": {"step": 1}}) + '\n{"time": 2.0, "da', encoding="utf-8")
    with Journal(path, append=True) as journal:
        journal.write(step=2)
    assert [entry.data.get("step") for entry in read_journal(path)] == [1, 2, None]


def test_a_job_that_starts_anew_forgets_the_old_journal(tmp_path: Path) -> None:
    for _ in range(2):
        with Journal(tmp_path / "journal.jsonl"):
            pass
    assert len(read_journal(tmp_path / "journal.jsonl")) == 1


@pytest.mark.parametrize(
    "line",
    ["5", "[]", "null", "{}", '{"time": "x"}', '{"time": 1, "data": 5}', '{"time": 1e999}',
     '{"time": 1, "outcome": "x"}', "[" * 100_000, '{"time": ' + "9" * 5000 + "}", "\x00" * 512],
)  # fmt: skip
def test_a_line_that_is_no_event_costs_that_line_only(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"time": 1.0, "data": {{"step": 1}}}}\n{line}\n{{"time": 2.0, "outcome": "finished"}}\n')
    assert [(entry.time, entry.outcome) for entry in read_journal(path)] == [(1.0, None), (2.0, "finished")]


@pytest.mark.parametrize("content", [b"a diary", b"\x89PNG\r\n\x1a\n", b'{"step": 1}\n', b"[]\n"])
@pytest.mark.parametrize("append", [False, True])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes, append: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no journal"), Journal(path, append=append):
        pass
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\n", b'{"ti', b'\n{"time": 1.0, "data": {}}\n'])
def test_a_journal_that_a_kill_cut_off_goes_on(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    with Journal(path, append=True) as journal:
        journal.write(step=1)
    assert read_journal(path)[-1].outcome == "finished"
