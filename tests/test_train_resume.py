"""A training that is stopped or killed at any moment goes on to the file of an unbroken one."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spectral_fusion.concept import Library
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band
from spectral_fusion.training import Progress, TrainConfig, train_concept, watch
from spectral_fusion.training.checkpoint import Checkpoint, read_header
from spectral_fusion.training.folder import stopped_settings
from tiny import tiny_base
from training import PROCESSES, TINY_SETTINGS, draw_photos, train_tiny


@dataclass(frozen=True)
class Unbroken:
    """A training that nothing disturbed: its pictures, its file, and how long it took."""

    photos: Path
    content: bytes
    seconds: float


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    root = tmp_path_factory.mktemp("unbroken")
    photos = draw_photos(root / "photos")
    run_in_a_process(photos, root / "warm-up")  # starts the server of processes and fills the cache of decompositions
    begin = time.monotonic()
    run_in_a_process(photos, root / "library")
    return Unbroken(photos, Library(root / "library").path("rex").read_bytes(), time.monotonic() - begin)


def run_in_a_process(photos: Path, library: Path, *, resume: bool = False, kill_after: float | None = None) -> None:
    process = PROCESSES.Process(target=train_tiny, args=(photos, library, resume))
    process.start()
    process.join(kill_after)
    process.kill()
    process.join()


def kill_and_resume(unbroken: Unbroken, library: Library, delays: list[float]) -> None:
    """Kill a training after each delay, each time resuming it, then let it finish."""
    for number, delay in enumerate(delays):
        run_in_a_process(unbroken.photos, library.root, resume=number > 0, kill_after=delay)
    run_in_a_process(unbroken.photos, library.root, resume=True)
    assert library.path("rex").read_bytes() == unbroken.content
    assert not (library.folder("rex") / "training" / "checkpoint.safetensors").exists()
    assert not list(library.root.rglob("*.part"))


def test_killed_twice_and_resumed_gives_the_identical_file(unbroken: Unbroken, tmp_path: Path) -> None:
    kill_and_resume(unbroken, Library(tmp_path), [0.5 * unbroken.seconds, 0.4 * unbroken.seconds])


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(10))
def test_killed_at_a_random_moment_and_resumed_gives_the_identical_file(
    unbroken: Unbroken, tmp_path: Path, moment: int
) -> None:
    kill_and_resume(unbroken, Library(tmp_path), [random.uniform(0, unbroken.seconds)])


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Trains in this process, stopping after a step where told; returns the concept's file."""
    monkeypatch.setattr(watch, "SAMPLE_STEPS", 2)
    photos = draw_photos(tmp_path / "photos")

    def train(
        library: Library, *, stop_after: int | None = None, resume: bool = False, force: bool = False, **given: Any
    ) -> bytes:
        def on_progress(progress: Progress) -> None:
            if progress.step == stop_after:
                raise KeyboardInterrupt

        train_concept(
            photos,
            TrainConfig(**TINY_SETTINGS | {"steps": 4, "checkpoint_every": 100} | given),
            library=library,
            base=tiny_base(),
            resume=resume,
            force=force,
            on_progress=on_progress,
        )
        return library.path(str(given.get("name", "rex"))).read_bytes()

    return train


def test_stopping_between_steps_saves_and_resuming_gives_the_same_file(
    quick: Callable[..., bytes], tmp_path: Path
) -> None:
    whole, broken = Library(tmp_path / "whole"), Library(tmp_path / "broken")
    options = {"flip": True, "caption_dropout": 0.2, "warmup_steps": 2, "schedule": "cosine", "mode": "rotational"}
    for stop_after in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            quick(broken, stop_after=stop_after, resume=True, **options)
        assert read_header(broken.folder("rex") / "training" / "checkpoint.safetensors")["step"] == stop_after
    assert quick(broken, resume=True, **options) == quick(whole, **options)


def test_resuming_rehearses_the_same_moments(quick: Callable[..., bytes], tmp_path: Path) -> None:
    whole, broken = Library(tmp_path / "whole"), Library(tmp_path / "broken")
    options = {"distillation_prompts": 2, "batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        quick(broken, stop_after=2, **options)
    unbroken = quick(whole, **options)
    assert quick(broken, resume=True, **options) == unbroken
    assert quick(Library(tmp_path / "none"), batch_size=2) != unbroken


def test_resuming_what_is_finished_changes_nothing(quick: Callable[..., bytes], tmp_path: Path) -> None:
    library = Library(tmp_path)
    first = quick(library)
    time_of_first = library.path("rex").stat().st_mtime_ns
    assert quick(library, resume=True) == first
    assert library.path("rex").stat().st_mtime_ns == time_of_first


def test_a_finished_concept_goes_on_for_more_steps(
    quick: Callable[..., bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library = Library(tmp_path)
    first = quick(library, band=2)
    with pytest.raises(KeyboardInterrupt):
        quick(library, resume=True, steps=7, band=2, stop_after=6)
    assert library.path("rex").read_bytes() == first, "the finished one stays until the longer one is done"
    longer = quick(library, resume=True, steps=7, band=2)
    assert "from step 4 to 7" in caplog.text
    assert (library.info("rex").training["steps"], library.info("rex").band) == (7, Band(2, 4, "bottom"))
    assert longer != first
    assert [entry.name for entry in library.trash()] == ["rex"]
    with pytest.raises(InputError, match="more --steps"):
        quick(library, resume=True, steps=5, band=2)
    with pytest.raises(InputError, match="seed was 0, is 1"):
        quick(library, resume=True, steps=9, band=2, seed=1)


def test_killed_between_saving_and_cleaning_up_it_only_cleans_up(quick: Callable[..., bytes], tmp_path: Path) -> None:
    library = Library(tmp_path)
    checkpoint = library.folder("rex") / "training" / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        quick(library, stop_after=4)
    left = {file: file.read_bytes() for file in (checkpoint, library.folder("rex") / "claim.json")}
    first = quick(library, resume=True)
    for file, content in left.items():
        file.write_bytes(content)
    assert quick(library, resume=True) == first
    assert not any(file.exists() for file in left)
    assert not list(library.root.glob(".trash/*"))


def test_what_a_kill_left_half_written_is_cleaned_up(quick: Callable[..., bytes], tmp_path: Path) -> None:
    library = Library(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        quick(library, stop_after=1)
    folder = library.folder("rex")
    halves = [folder / ".preview.png.a.part", folder / "training" / ".checkpoint.safetensors.b.part"]
    for half in halves:
        half.write_bytes(b"half")
    quick(library, resume=True)
    assert not any(half.exists() for half in halves)


def test_a_stopped_training_is_neither_lost_nor_mixed_with_another(quick: Callable[..., bytes], tmp_path: Path) -> None:
    library = Library(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        quick(library, stop_after=2)
    with pytest.raises(InputError, match="--resume"):
        quick(library)
    with pytest.raises(InputError, match="seed was 0, is 1"):
        quick(library, resume=True, seed=1)
    draw_photos(tmp_path / "photos", 2, (50, 50))
    with pytest.raises(InputError, match="pictures"):
        quick(library, resume=True)
    assert quick(library, force=True)


def test_a_replacement_that_was_stopped_still_replaces(quick: Callable[..., bytes], tmp_path: Path) -> None:
    library = Library(tmp_path)
    old = quick(library)
    with pytest.raises(KeyboardInterrupt):
        quick(library, seed=1, force=True, stop_after=2)
    assert library.path("rex").read_bytes() == old
    assert quick(library, seed=1, resume=True) != old
    assert [path.read_bytes() for path in library.root.glob(".trash/rex@*/concept.safetensors")] == [old]


def test_a_stopped_training_keeps_its_band_and_settings(quick: Callable[..., bytes], tmp_path: Path) -> None:
    library = Library(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        quick(library, stop_after=2)
    quick(library, name="tom")
    assert library.info("tom").band == Band(1, 4, "bottom")
    kept = stopped_settings(library, "rex")
    assert kept is not None
    assert (kept["steps"], kept["rank"]) == (4, 4)
    quick(library, resume=True)
    assert library.info("rex").band == Band(0, 4, "bottom")
    assert stopped_settings(library, "rex") is None


def test_a_name_is_trained_by_one_process_at_a_time(quick: Callable[..., bytes], tmp_path: Path) -> None:
    from filelock import FileLock

    library = Library(tmp_path)
    (tmp_path / ".locks").mkdir()
    with FileLock(tmp_path / ".locks" / "rex.lock"), pytest.raises(InputError, match="another process"):
        quick(library)
    assert quick(library)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint(1, {}, {}).save(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        Checkpoint(2, {}, {}).save(path)
    assert Checkpoint.load(path).step == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_checkpoint_is_an_error(quick: Callable[..., bytes], tmp_path: Path) -> None:
    path = tmp_path / "rex" / "training" / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x80\x04 not ours")
    with pytest.raises(InputError, match="damaged"):
        quick(Library(tmp_path), resume=True)
