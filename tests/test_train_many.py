"""Many concepts at once: the files of one after another, whatever happens to workers on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from many import kill_one, local_workers, ray_workers
from spectral_fusion.base.load import open_base
from spectral_fusion.cli import app
from spectral_fusion.concept import Library
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.training import TrainConfig, watch
from spectral_fusion.training.checkpoint import read_header
from spectral_fusion.training.job import resolve
from spectral_fusion.training.many import job
from spectral_fusion.training.many.job import Where, train_many
from spectral_fusion.training.many.plan import Request
from spectral_fusion.training.many.run import News
from spectral_fusion.training.many.task import Event, Hello, Setup, Task, WorkerLost, packed, unpacked
from spectral_fusion.training.many.trainer import Trainer
from spectral_fusion.training.together import Subject, train_together
from tiny import tiny_base
from training import draw_photos

NAMES = ("rex", "tom", "kit")
SETTINGS = {"class_word": "cat", "rank": 2, "steps": 4, "batch_size": 1, "distillation_prompts": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_base().pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for count, name in enumerate(NAMES, 2):
        draw_photos(folder / name, count)
    return folder


@pytest.fixture(scope="module")
def requests(base: Path, photos: Path) -> list[Request]:
    # In half precision a worker casts its base, which the caller's own, of `train_together`, is spared.
    settings = SETTINGS | {"base": str(base), "checkpoint_every": 1, "precision": "fp32"}
    return [
        Request(ImageFolder.scan(photos / name), TrainConfig(name=name, **settings))  # type: ignore[arg-type]
        for name in NAMES
    ]


class Inside:
    """A worker in this process. After `lives` events, where that is told, it is gone."""

    tasks: list[Task] = []  # noqa: RUF012  # of all, in the order given out

    def __init__(self, setup: Setup, lives: Callable[[Task], int | None] = lambda task: None, **other: str):
        self.trainer, self.lives, self.other = Trainer(setup), lives, other

    def hello(self) -> Hello:
        return replace(self.trainer.hello(), **self.other)

    def run(self, task: Task) -> Iterator[Event]:
        self.tasks.append(task)
        events: list[Event] = []
        self.trainer.run(task.packed(), events.append)
        left = self.lives(task)
        yield from events[:left]
        if left is not None:
            raise WorkerLost("the worker is gone")

    def stop(self) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Task]]:
    """Have workers of this process instead of others; returns the tasks that they get."""
    monkeypatch.setattr(watch, "SAMPLE_STEPS", 2)

    def use(**given: Any) -> list[Task]:
        monkeypatch.setattr(Inside, "tasks", [])
        monkeypatch.setattr(job, "_workers", lambda setup, where: (lambda place: Inside(setup, **given), 1))
        return Inside.tasks

    return use


def files(library: Library) -> dict[str, bytes]:
    return {
        f"{name}/{file}": (library.root / name / file).read_bytes()
        for name in NAMES
        for file in ("concept.safetensors", "preview.png")
    }


@pytest.fixture(scope="module")
def undisturbed(requests: list[Request], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one worker in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "SAMPLE_STEPS", 2)
        patch.setattr(job, "_workers", lambda setup, where: (lambda place: Inside(setup), 1))
        library = Library(tmp_path_factory.mktemp("undisturbed"))
        outcome = train_many(requests, library=library)
    assert outcome == job.Outcome([*NAMES], {})
    assert sorted(path.name for path in (library.root / "rex").iterdir()) == ["concept.safetensors", "preview.png"]
    return files(library)


def test_the_files_are_those_of_one_after_another(
    undisturbed: dict[str, bytes], requests: list[Request], base: Path, tmp_path: Path
) -> None:
    (tmp_path / "rex.safetensors").write_bytes(undisturbed["rex/concept.safetensors"])
    opened = open_base(base)
    subjects = []
    for name, request in zip(NAMES, requests, strict=True):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(undisturbed[f"{name}/concept.safetensors"])
        from spectral_fusion.concept import read_info

        info = read_info(path)
        subjects.append(Subject(request.images, resolve(request.config, opened), info.band, info.training))
    for concept in train_together(opened, subjects):
        concept.save(tmp_path / "alone.safetensors")
        assert (tmp_path / "alone.safetensors").read_bytes() == undisturbed[f"{concept.name}/concept.safetensors"]


def test_a_lost_worker_loses_no_more_than_the_steps_since_its_checkpoint(
    undisturbed: dict[str, bytes],
    requests: list[Request],
    inside: Callable[..., list[Task]],
    tmp_path: Path,
) -> None:
    lost: list[str] = []

    def lives(task: Task) -> int | None:
        """Each second round ends after its first step and checkpoint, once."""
        if task.round == 0 or task.name in lost:
            return None
        lost.append(task.name)
        return 2

    tasks = inside(lives=lives)
    news: list[News] = []
    library = Library(tmp_path)
    train_many(requests, library=library, on_news=news.append)
    assert files(library) == undisturbed
    again = [task for task in tasks if task.round == 1 and task.checkpoint is not None]
    assert sorted(task.name for task in again) == sorted(NAMES)
    assert any(item.state == "to be tried again" and "gone" in item.note for item in news)


def test_a_second_start_goes_on_where_the_first_stopped(
    undisturbed: dict[str, bytes],
    requests: list[Request],
    inside: Callable[..., list[Task]],
    tmp_path: Path,
) -> None:
    library = Library(tmp_path)

    def lives(task: Task) -> int | None:
        """The first round of tom ends after its first step and checkpoint, and goes no further from there."""
        if (task.name, task.round) != ("tom", 0):
            return None
        return 2 if task.checkpoint is None else 1

    inside(lives=lives)
    outcome = train_many(requests, library=library)
    assert outcome.done == []
    assert "gone" in outcome.failed["tom"]
    assert "tom" in outcome.failed["rex"]
    tasks = inside()
    assert train_many(requests, library=library).done == [*NAMES]
    assert [(task.name, task.round, task.checkpoint is not None) for task in tasks] == [
        ("tom", 0, True),
        *((name, 1, False) for name in NAMES),
    ]
    assert files(library) == undisturbed
    assert inside() == []
    assert train_many(requests, library=library).done == [*NAMES]
    assert Inside.tasks == []
    swapped = [replace(request, config=replace(request.config, offload_blocks=True)) for request in requests]
    with pytest.raises(InputError, match="offload_blocks"):
        train_many(swapped, library=library)
    other = [replace(request, config=replace(request.config, seed=1)) for request in requests]
    with pytest.raises(InputError, match="--force"):
        train_many(other, library=library)
    assert files(library) == undisturbed


@pytest.mark.parametrize(
    ("other", "words"),
    [({"versions": "spectral-fusion 9, torch 1"}, "has spectral-fusion 9"), ({"base": "f" * 16}, "another base")],
)
def test_a_worker_that_would_train_something_else_is_refused(
    requests: list[Request], inside: Callable[..., list[Task]], tmp_path: Path, other: dict[str, str], words: str
) -> None:
    tasks = inside(**other)
    with pytest.raises(InputError, match=words):
        train_many(requests, library=Library(tmp_path))
    assert tasks == []
    assert Library(tmp_path).stock().claims == ()


def test_a_folder_goes_to_another_machine_whole(photos: Path) -> None:
    with unpacked(packed(photos / "tom"), folder=True) as path:
        assert path.name == "tom"
        assert [photo.path.name for photo in ImageFolder.scan(path).photos] == ["0.png", "1.png", "2.png"]


def refused(words: str, *arguments: object) -> None:
    result = CliRunner().invoke(app, ["train-many", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_bad_input_is_one_line_before_anything_is_trained(
    base: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "Run", lambda *_, **__: pytest.fail("a training was started"))
    library = tmp_path / "library"
    common = ("--base", base, "--library", library, "--class", "cat", "--rank", 2, "--steps", 4)
    manifest = tmp_path / "many.toml"
    (tmp_path / "empty").mkdir()

    def write(*entries: str) -> Path:
        manifest.write_text("\n".join(f"[[concept]]\nimages = '{photos / 'rex'}'\n{entry}" for entry in entries))
        return manifest

    refused("two concepts have the name 'REX'", write("name = 'rex'", "name = 'REX'"), *common)
    refused("two concepts have the trigger", write("trigger = '<a>'", "name = 'b'\ntrigger = '<a>'"), *common)
    refused("unknown setting 'nam'; did you mean 'name'", write("nam = 'rex'"), *common)
    refused("is empty; put pictures", photos / "rex", tmp_path / "empty", *common)
    refused("does not exist", photos / "rex", tmp_path / "nowhere", *common)
    refused("lists no concepts", _written(manifest, ""), *common)
    refused("not valid TOML", _written(manifest, "[[concept"), *common)
    refused("rank is", write("rank = 0"), *common)
    refused("give it alone", write("name = 'rex'"), photos / "rex", *common)
    refused("no free band", photos / "rex", photos / "tom", *common[:-4], "--rank", 32, "--steps", 4)
    refused("class pictures", photos / "rex", *common, "--num-class-images", 3)
    refused("two rounds", photos / "rex", photos / "tom", *common[:-1], 1)
    refused("cannot be written", photos / "rex", *common[:3], _written(tmp_path / "file", "x"), *common[4:])
    assert Library(library).stock().claims == ()
    assert not list(library.rglob("*.safetensors"))


def test_no_ray_is_one_line(base: Path, photos: Path, tmp_path: Path) -> None:
    common = (photos / "rex", "--base", base, "--library", tmp_path, "--class", "cat", "--rank", 2, "--steps", 4)
    pytest.importorskip("ray")
    refused("no Ray at 127.0.0.1:9", *common, "--ray", "127.0.0.1:9")
    refused("no address of Ray", *common, "--ray", "somewhere")
    assert Library(tmp_path).stock().claims == ()


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.slow
def test_two_processes_one_of_which_is_killed(requests: list[Request], tmp_path: Path) -> None:
    alone, library, killed = Library(tmp_path / "alone"), Library(tmp_path / "two"), list[int]()
    train_many(requests, library=alone, where=Where(1, threads=1))
    watch = kill_one(local_workers, killed)
    assert train_many(requests, library=library, where=Where(2, threads=1), on_news=watch).failed == {}
    assert killed
    assert files(library) == files(alone)


@pytest.mark.slow
def test_two_workers_of_a_ray_cluster_one_of_which_is_killed(requests: list[Request], tmp_path: Path) -> None:
    ray: Any = pytest.importorskip("ray")
    alone, library, killed = Library(tmp_path / "alone"), Library(tmp_path / "cluster"), list[int]()
    train_many(requests, library=alone, where=Where(1, threads=1))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        where = Where(2, ray.get_runtime_context().gcs_address, threads=1)
        watch = kill_one(ray_workers, killed)
        assert train_many(requests, library=library, where=where, on_news=watch).failed == {}
    finally:
        ray.shutdown()
    assert killed
    assert files(library) == files(alone)


@pytest.mark.slow
def test_ctrl_c_keeps_checkpoints_and_the_same_command_goes_on(base: Path, photos: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "spectral_fusion", "train-many", photos / "rex", photos / "tom", "--base", base]
    line += ["--library", tmp_path, "--class", "cat", "--rank", 2, "--steps", 160, "--threads", 1]
    line += ["--distillation-prompts", 0, "--checkpoint-every", 1000]
    process = subprocess.Popen([*map(str, line)], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    said = next(told for told in process.stderr if "loss" in told)
    process.send_signal(signal.SIGINT)
    said += process.communicate()[1]
    assert process.returncode == 130, said
    assert "go on with the same command" in said
    assert "Traceback" not in said
    (checkpoint,) = tmp_path.rglob("checkpoint.safetensors")
    assert 0 < read_header(checkpoint)["step"] < 80
    assert {name for name, _ in Library(tmp_path).stock().claims} == {"rex"}
    again = subprocess.run([*map(str, line)], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split() == [str(Library(tmp_path).path(name)) for name in ("rex", "tom")]
