"""`spectral-fusion train`: flags, settings file, resuming, errors."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from spectral_fusion.cli import app
from spectral_fusion.concept import Library
from spectral_fusion.training import TrainConfig, watch
from spectral_fusion.training.config import settings
from tiny import tiny_base
from training import draw_photos

QUICK = ("--rank", "4", "--steps", "2", "--batch-size", "2", "--distillation-prompts", "0", "--no-logs")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_base().pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw_photos(tmp_path / "photos")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


@pytest.fixture
def train(base: Path, photos: Path, library: Library, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the verb in this process."""
    monkeypatch.setattr(watch, "SAMPLE_STEPS", 2)

    def run(*args: str, images: Path = photos) -> Result:
        common = ["train", str(images), "--base", str(base), "--library", str(library.root)]
        return CliRunner().invoke(app, [*common, *args])

    return run


def config_of(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace the job by one that notes what it was asked for."""
    import spectral_fusion.training.job as job

    asked: list[dict[str, Any]] = []

    def note(images: object, config: TrainConfig, **rest: Any) -> None:
        asked.append({"config": config, **rest})
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "train_concept", note)
    return asked


def test_every_setting_is_a_flag_with_its_help() -> None:
    text = CliRunner(env={"COLUMNS": "300", "TERMINAL_WIDTH": "300"}).invoke(app, ["train", "--help"]).stdout
    for name, item in settings().items():
        assert (item.flag or f"--{name.replace('_', '-')}") in text
        assert item.help in text


def test_two_lines_train_a_concept(train: Callable[..., Result], library: Library) -> None:
    result = train("--name", "rex", "--class", "dog", *QUICK)
    assert result.exit_code == 0, result.output
    assert str(library.path("rex")) in result.stdout
    assert "--concepts rex" in result.stdout
    info = library.info("rex")
    assert (info.trigger, info.band.rank, info.training["steps"]) == ("<rex>", 4, 2)


def test_the_line_it_suggests_makes_a_picture(train: Callable[..., Result], tmp_path: Path) -> None:
    line = train("--name", "rex", "--class", "dog", *QUICK).stdout.splitlines()[-1]
    words = shlex.split(line.removeprefix("try: spectral-fusion "))
    result = CliRunner().invoke(app, [*words, "--steps", "1", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "out").glob("*.png"))


def test_warnings_about_pictures_are_shown(train: Callable[..., Result], photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"x")
    result = train("--name", "rex", "--class", "dog", *QUICK)
    assert result.exit_code == 0
    assert "broken.jpg" in result.stderr


def test_flags_override_the_settings_file(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config_of(monkeypatch)
    file = tmp_path / "rex.toml"
    file.write_text(
        'name = "rex"\nclass-word = "dog"\nsteps = 7\nflip = true\nband = 3\ntarget = ["to_k", "to_v"]\n'
        'learning_rate_unet = 0.5\nmode = "rotational"\n'
    )
    train("--config", str(file), "--steps", "9", "--no-flip", "--resume")
    (job,) = asked
    wanted = TrainConfig(
        name="rex",
        class_word="dog",
        base=job["config"].base,
        steps=9,
        flip=False,
        band=3,
        target=("to_k", "to_v"),
        learning_rate_unet=0.5,
        mode="rotational",
    )
    assert job["config"] == wanted
    assert job["resume"]
    assert not job["force"]


def test_the_class_may_come_from_a_kohya_folder(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config_of(monkeypatch)
    train("--name", "rex", images=draw_photos(tmp_path / "10_rex dog"))
    assert asked[0]["config"].class_word == "dog"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--class", "dog"), "--name"),
        (("--name", "rex"), "--class"),
        (("--name", "a/b", "--class", "dog"), "a/b"),
        (("--name", "rex", "--class", "dog", "--steps", "0"), "steps"),
        (("--name", "rex", "--class", "dog", "--band", "first"), "band"),
        (("--name", "rex", "--class", "dog", "--band-order", "top"), "--band-side top"),
        (("--name", "rex", "--class", "dog", "--base", "/nowhere"), "/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    train: Callable[..., Result], library: Library, args: tuple[str, ...], words: str
) -> None:
    result = train(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not library.list()


def test_a_finished_concept_needs_force(train: Callable[..., Result], library: Library) -> None:
    assert train("--name", "rex", "--class", "dog", *QUICK).exit_code == 0
    old = library.path("rex").read_bytes()
    result = train("--name", "rex", "--class", "dog", *QUICK, "--seed", "1")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert train("--name", "rex", "--class", "dog", *QUICK, "--seed", "1", "--force").exit_code == 0
    assert library.path("rex").read_bytes() != old


def test_tensorboard_logs_are_written(train: Callable[..., Result], library: Library) -> None:
    quick = [flag for flag in QUICK if flag != "--no-logs"]
    assert train("--name", "rex", "--class", "dog", *quick, "--sample-every", "1").exit_code == 0
    (file,) = (library.folder("rex") / "training" / "logs").iterdir()
    assert b"learning_rate/unet" in file.read_bytes()


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(base: Path, photos: Path, library: Library) -> None:
    command = [sys.executable, "-m", "spectral_fusion", "train", str(photos), "--name", "rex", "--class", "dog"]
    command += ["--base", str(base), "--library", str(library.root), "--rank", "4", "--steps", "2000", "--no-logs"]
    journal = library.root.with_name("journal")
    command += ["--distillation-prompts", "0", "--journal", str(journal)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (journal.exists() and '"step": 3' in journal.read_text()) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "--resume" in errors
    assert (library.folder("rex") / "training" / "checkpoint.safetensors").exists()
    assert not library.path("rex").exists()


def test_resuming_takes_the_settings_of_the_stopped_training(
    train: Callable[..., Result], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectral_fusion.training.loop import Loop

    advance = Loop.advance

    def ctrl_c_in_the_second_step(self: Loop) -> Any:
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "advance", ctrl_c_in_the_second_step)
        stopped = train("--name", "rex", "--class", "dog", *QUICK, "--steps", "4", "--seed", "5")
    assert stopped.exit_code == 130
    assert "--resume" in stopped.stderr
    assert not library.path("rex").exists()
    refused = train("--name", "rex", "--resume", "--steps", "5")
    assert refused.exit_code == 2
    assert "steps was 4, is 5" in refused.stderr
    resumed = train("--name", "rex", "--resume", "--no-logs")
    assert resumed.exit_code == 0, resumed.output
    assert library.info("rex").training["seed"] == 5


@pytest.mark.slow
def test_accelerate_launch_on_two_processes_trains_one_concept(base: Path, photos: Path, library: Library) -> None:
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    verb = ["-m", "spectral_fusion", "train", str(photos), "--name", "rex", "--class", "dog", *QUICK]
    where = ["--base", str(base), "--library", str(library.root)]
    result = subprocess.run([*launch, *verb, *where], capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(str(library.path("rex"))) == 1
    assert library.info("rex").training["batch_size"] == 2


def test_a_training_says_what_it_does_before_its_first_step(train: Callable[..., Result]) -> None:
    flags = [*QUICK, "--distillation-prompts", "3", "--num-class-images", "2", "--prior-weight", "1"]
    result = train("--name", "rex", "--class", "dog", *flags)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("rex: ")]
    begin = ["loading", "decomposing layer", "drawing class picture", "drawing what is to stay", "encoding", "step 1"]
    first = [next(number for number, line in enumerate(lines) if line.startswith(f"rex: {text}")) for text in begin]
    assert first == sorted(first)
    assert lines[-1] == "rex: drawing a preview"
    assert all(" of " in line for line in lines[first[1] : first[-1]])
