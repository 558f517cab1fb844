"""Trainings as the page sees them: processes of their own, told from what is on disk."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from concepts import make_concept
from spectral_fusion.concept import Library
from spectral_fusion.errors import InputError
from spectral_fusion.journal import Entry, Journal
from spectral_fusion_app.processes import VerbProcess
from spectral_fusion_app.train.progress import ACTIVE, read_points
from spectral_fusion_app.train.trainings import Training, Trainings, to_toml
from tiny import tiny_base
from training import draw_photos

QUICK = {
    "name": "rex",
    "class_word": "dog",
    "rank": 4,
    "steps": 3,
    "batch_size": 2,
    "resolution": 32,
    "distillation_prompts": 0,
}
Start = Callable[..., Training]


@pytest.fixture
def trainings(tmp_path: Path) -> Trainings:
    return Trainings(tmp_path / "out", tmp_path / "library")


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Nothing is started; what would be is noted."""
    started: list[list[str]] = []
    monkeypatch.setattr(VerbProcess, "start", lambda self, arguments: started.append(list(arguments)))
    return started


@pytest.fixture
def start(trainings: Trainings, tmp_path: Path) -> Start:
    images = draw_photos(tmp_path / "photos")
    return lambda **changes: trainings.start(images, QUICK | changes)


def write_steps(training: Training, *steps: int, pause: float = 0.0, append: bool = False) -> None:
    with Journal(training.folder / "journal.jsonl", append=append) as journal:
        for step in steps:
            time.sleep(pause)
            journal.write(step=step, steps=3, loss=1 / step, probe_loss=None, samples=False)


def test_a_training_gets_a_copy_of_the_pictures_and_its_settings(
    start: Start, no_process: list[list[str]], trainings: Trainings
) -> None:
    training = start(flip=True, target=("to_q", "to_k"), seed=None)
    (arguments,) = no_process
    assert arguments[:2] == ["train", str(training.images)]
    assert len(list(training.images.iterdir())) == 3
    text = (training.folder / "settings.toml").read_text(encoding="utf-8")
    assert 'name = "rex"' in text
    assert "flip = true" in text
    assert 'target = ["to_q", "to_k"]' in text
    assert "seed" not in text
    assert [found.id for found in trainings.list()] == [training.id]
    assert trainings.photos("rex") == training.images
    assert trainings.photos("tom") is None


@pytest.mark.parametrize("name", ["", "../up", "a/b", "/etc", "..", "<b>rex</b>", "x" * 100])
def test_a_name_that_could_be_a_path_starts_nothing(
    start: Start, no_process: list[list[str]], trainings: Trainings, name: str
) -> None:
    with pytest.raises(InputError):
        start(name=name)
    assert (trainings.list(), no_process, trainings.root.exists()) == ([], [], False)


def test_a_setting_out_of_range_or_a_taken_name_starts_nothing(
    start: Start, no_process: list[list[str]], trainings: Trainings
) -> None:
    with pytest.raises(InputError, match="steps"):
        start(steps=0)
    taken = trainings.library / "rex" / "concept.safetensors"
    taken.parent.mkdir(parents=True)
    taken.touch()
    with pytest.raises(InputError, match="already"):
        start()
    assert (trainings.list(), no_process) == ([], [])


def test_settings_survive_being_written_as_toml() -> None:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    settings: dict[str, Any] = {"a": 'quote " back \\ line \n tab \t \x7f é 🦊', "b": 1e-5, "c": True, "d": ["x", "y"]}
    assert tomllib.loads(to_toml(settings)) == settings


def test_progress_and_time_left_come_from_the_journal(start: Start, no_process: list[list[str]]) -> None:
    training = start()
    assert training.state().kind == "failed", "its process is not there"
    write_steps(training, 1, 2, pause=0.1)
    state = training.state()
    assert (state.kind, state.step, state.steps) == ("finished", 2, 3)
    assert [point.loss for point in state.points] == [1.0, 0.5]
    assert state.seconds_left == pytest.approx(0.1, abs=0.09)


def test_a_resumed_training_replaces_the_steps_that_it_does_again(start: Start, no_process: list[list[str]]) -> None:
    training = start()
    write_steps(training, 1, 2)
    write_steps(training, 2, 3, append=True)
    assert [point.step for point in training.state().points] == [1, 2, 3]


def test_a_failed_training_says_why(start: Start, no_process: list[list[str]]) -> None:
    training = start()
    with pytest.raises(InputError), Journal(training.folder / "journal.jsonl"):
        raise InputError("the loss is nan; lower the learning rates")
    assert (training.state().kind, training.state().error) == ("failed", "the loss is nan; lower the learning rates")
    silent = start(name="tom")
    (silent.folder / "log.txt").write_text("Killed\n\n", encoding="utf-8")
    assert silent.state().error.endswith("Killed")


def test_ids_that_are_not_of_the_list_are_refused(trainings: Trainings, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for id in ("../elsewhere", str(tmp_path / "elsewhere"), "", ".", "nothing"):
        with pytest.raises(InputError, match="no training"):
            trainings.find(id)


def test_another_process_with_the_same_number_is_not_taken_for_the_training(
    start: Start, no_process: list[list[str]]
) -> None:
    training = start()
    me = psutil.Process()
    record = training.folder / "process.json"
    record.write_text(json.dumps({"pid": me.pid, "created": me.create_time()}), encoding="utf-8")
    assert training.state().kind == "preparing"
    record.write_text(json.dumps({"pid": me.pid, "created": me.create_time() - 1}), encoding="utf-8")
    assert not training.process.running
    training.cancel()  # must not end this very process


def test_trainings_wait_for_one_another_and_start_in_the_order_of_asking(
    start: Start, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[Path] = []
    monkeypatch.setattr(VerbProcess, "start", lambda self, arguments: running.append(self.folder))
    monkeypatch.setattr(VerbProcess, "running", property(lambda self: running[-1:] == [self.folder]))
    first, second, third = (start(name=name) for name in ("rex", "tom", "kit"))
    assert [one.state().kind for one in (first, second, third)] == ["preparing", "waiting", "waiting"]
    trainings.advance()
    assert len(running) == 1
    running.append(trainings.root)  # the first is over
    trainings.advance()
    assert running[-1] == second.folder
    assert third.waits
    third.cancel()
    assert third.state().kind == "stopped"
    running.append(trainings.root)
    trainings.advance()
    assert running[-1] == trainings.root, "nothing is left"


def test_only_so_many_wait(start: Start, trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerbProcess, "start", lambda self, arguments: None)
    monkeypatch.setattr(VerbProcess, "running", property(lambda self: self.folder.name.endswith("rex")))
    trainings.longest = 1
    start()
    start(name="tom")
    with pytest.raises(InputError, match="1 trainings are waiting"):
        start(name="kit")


def test_a_trigger_that_another_concept_has_is_refused_at_once(
    start: Start, no_process: list[list[str]], trainings: Trainings
) -> None:
    Library(trainings.library).add(make_concept(tiny_base(), "kit"))
    with pytest.raises(InputError, match="belongs to concept 'kit'"):
        start(name="Kit2", trigger="<KIT>")
    with pytest.raises(InputError, match="has a concept 'KIT' already"):
        start(name="KIT")
    assert (no_process, trainings.list()) == ([], [])


def test_a_training_that_is_over_is_removed_and_one_that_failed_at_once_is_not_resumable(
    start: Start, no_process: list[list[str]], trainings: Trainings
) -> None:
    training = start()
    assert not training.resumable
    write_steps(training, 1)
    trainings.remove(training.id)
    assert trainings.list() == []
    with pytest.raises(InputError, match="no training"):
        trainings.remove(training.id)


def test_a_full_disk_leaves_no_training_behind(
    start: Start, no_process: list[list[str]], trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spectral_fusion_app.train.trainings.write_record", full)
    with pytest.raises(OSError, match="No space"):
        start()
    assert list(trainings.root.iterdir()) == []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    tiny_base().pipeline.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def cleaned(trainings: Trainings) -> Iterator[None]:
    yield
    for training in trainings.list():
        while training.process.running:
            training.cancel()
            time.sleep(0.1)


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("cleaned")
def test_a_training_runs_apart_survives_its_server_and_can_be_cancelled_and_resumed(
    trainings: Trainings, start: Start, base: str
) -> None:
    training = start(base=base, steps=60)
    process = psutil.Process(json.loads((training.folder / "process.json").read_text(encoding="utf-8"))["pid"])
    assert process.pid != os.getpid()
    assert os.getsid(process.pid) == process.pid, "a session of its own: what ends the server leaves it alone"
    waiting = start(name="tom")
    assert (waiting.state().kind, waiting.process.running) == ("waiting", False)
    waiting.cancel()
    assert waiting.state().kind == "stopped"
    wait_until(lambda: training.state().step > 2)

    restarted = Trainings(trainings.root, trainings.library)
    found, other = sorted(restarted.list(), key=lambda one: one.id != training.id)
    assert (found.id, other.id, other.state().kind) == (training.id, waiting.id, "stopped")
    assert found.state().kind == "training"
    assert found.state().steps == 60
    found.cancel()
    wait_until(lambda: found.state().kind not in ACTIVE)
    stopped = found.state()
    assert stopped.kind == "stopped", stopped.error
    with pytest.raises(InputError, match="resume it"):
        start(base=base)
    wait_until(lambda: not psutil.pid_exists(process.pid), seconds=20)  # a zombie for a moment, never for good

    restarted.resume(found.id)
    wait_until(lambda: found.state().step > stopped.step)
    wait_until(lambda: found.state().kind not in ACTIVE)
    finished = found.state()
    assert (finished.kind, finished.step) == ("finished", 60), finished.error
    assert [point.step for point in finished.points] == list(range(1, 61))
    assert Library(found.library).info("rex").class_word == "dog"
    with pytest.raises(InputError, match="finished"):
        restarted.resume(found.id)


@pytest.mark.parametrize(
    "data", [{"step": "1", "steps": 3, "loss": 1.0}, {"step": 1, "steps": 3}, {"step": 1, "steps": 3, "loss": "x"},
             {"step": 1, "steps": None, "loss": 1.0}, {"step": 1, "steps": 3, "loss": float("nan")},
             {"step": 1, "steps": 3, "loss": 1.0, "likeness": "x"}],
)  # fmt: skip
def test_a_step_that_says_no_numbers_is_left_out(data: dict[str, Any]) -> None:
    good = [Entry(float(step), {"step": step, "steps": 3, "loss": 1.0}) for step in (1, 2)]
    points, steps = read_points([good[0], Entry(1.5, data), good[1]])
    assert ([point.step for point in points], steps) == ([1, 2], 3)
