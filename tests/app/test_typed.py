"""Values of the HTTP API, and records of runs, as strangers and full disks leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from loops import run

from spectral_fusion_app.create.api import Endpoints
from spectral_fusion_app.errors import answered
from spectral_fusion_app.lab.evaluations import Evaluations
from spectral_fusion_app.page import refuse_too_few
from spectral_fusion_app.processes import VerbProcess
from spectral_fusion_app.records import read_record, write_record
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.train.trainings import Trainings, check_bounds

BROKEN = ["", "{", "[]", "null", '{"pid": "x", "created": 1}', '{"pid": -5}', "[" * 100_000, '{"pid": 1e999}']


@pytest.fixture
def generate(tmp_path: Path) -> Any:
    return answered(Endpoints(Studio(AppSettings(out=tmp_path))).generate)


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": 5},
        {"prompt": None},
        {"prompt": ["a"]},
        {"prompt": "half \ud800 a letter"},
        {"negative_prompt": "\udfff"},
        {"weights": [1]},
        {"weights": {"rex": {}}},
        {"weights": {"\ud800": 1}},
        {"regions": {"prompt": "a"}},
        {"regions": [{"prompt": 5}]},
        {"regions": [{"prompt": "a", "box": [0, 0, 1]}]},
        {"regions": [{"prompt": "a", "box": [0, 0, 1, "x"]}]},
        {"seed": 10**29},
        {"seed": "1" * 5000},
        {"seed": -1},
        {"seed": 0.5},
        {"seed": [1]},
        {"steps": 1e300},
        {"steps": None},
        {"width": "wide"},
        {"guidance_scale": "nan"},
        {"num_images": {}},
        {"grid": 7},
        {"grid": {"weights": "-1e9, nan"}},
        {"grid": {"steps": 3}},
        {"sampler": 3},
    ],
)
def test_a_value_of_another_kind_is_answered_with_a_sentence(generate: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(gr.Error) as caught:
        run(generate(None, **{"prompt": "a dog"} | asked))
    assert "this failed" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_numbers_written_as_text_are_numbers(generate: Any) -> None:
    with pytest.raises(gr.Error, match="still loading"):  # after all kinds were checked
        run(generate(None, prompt="", steps="4", weights={"rex": "1.5"}))


@pytest.mark.parametrize("text", BROKEN)
def test_an_unreadable_record_stops_no_list(tmp_path: Path, text: str) -> None:
    for root, name in (("trainings", "training.json"), ("evaluations", "evaluation.json")):
        for number, record in enumerate((text, '{"name": "rex", "library": "x", "force": false, "names": ["a", "b"]}')):
            folder = tmp_path / root / f"20261121-14050{number}-000000-rex"
            folder.mkdir(parents=True)
            (folder / name).write_text(record, encoding="utf-8")
            (folder / "process.json").write_text(text, encoding="utf-8")
    trainings = Trainings(tmp_path / "trainings", tmp_path / "library")
    good, broken = trainings.list()
    assert (good.name, good.state().kind) == ("rex", "failed")
    assert (broken.name, broken.state().kind) == ("unreadable record", "failed")
    assert "cannot be read" in broken.state().error
    assert trainings.running() is None
    evaluations = Evaluations(tmp_path / "evaluations", tmp_path / "library").list()
    assert [one.names for one in evaluations] == [["a", "b"], ["unreadable record"]]
    assert [one.state().kind for one in evaluations] == ["failed", "failed"]
    VerbProcess(broken.folder).stop()


def test_a_record_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "process.json"
    write_record(path, {"pid": 1})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            write_record(path, {"pid": 2})
    assert read_record(path) == {"pid": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["process.json"]


@pytest.mark.parametrize("settings", [{"steps": 10**9}, {"batch_size": 10**6}, {"resolution": 4096}, {"steps": 1e999}])
def test_a_training_is_bounded(settings: dict[str, Any]) -> None:
    from spectral_fusion.errors import InputError

    with pytest.raises(InputError, match="page allows"):
        check_bounds(settings, AppSettings().limits.training)


def draw(prompt: str, steps: int) -> str:
    return prompt * steps


def test_too_few_values_are_answered_in_a_sentence_without_what_was_sent() -> None:
    with gr.Blocks() as page:
        gr.api(draw, api_name="draw")
    refuse_too_few(page)
    (function,) = page.fns.values()
    page.validate_inputs(function, ["a secret", 2])
    with pytest.raises(gr.Error, match="draw takes 2 values and got 1") as caught:
        page.validate_inputs(function, ["a secret"])
    assert not caught.value.print_exception
    assert "secret" not in str(caught.value)
