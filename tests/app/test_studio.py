"""The studio: a base that loads behind the page, pictures, history."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serving import make_place

from spectral_fusion.errors import InputError
from spectral_fusion.generation import GenerateConfig
from spectral_fusion.picture import Parameters, read_parameters
from spectral_fusion_app.create.draft import picture_draft
from spectral_fusion_app.create.drawing import Progress, Request
from spectral_fusion_app.create.grid import Axis
from spectral_fusion_app.create.history import History
from spectral_fusion_app.engine import Engine
from spectral_fusion_app.settings import AppSettings, Limits
from spectral_fusion_app.studio import BaseState, Studio
from spectral_fusion_app.visitors import Visitor

ANN, BOB = Visitor("browser", "ann"), Visitor("browser", "bob")
CONFIG = GenerateConfig("a <rex> dog and a <tom> cat", num_inference_steps=3, seed=5)
PLAIN = replace(CONFIG, prompt="a dog")
WEIGHTS = {"rex": 1.0, "tom": 0.5}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("studio"))


@pytest.fixture
def studio(place: Path, tmp_path: Path) -> Studio:
    settings = AppSettings(
        library=place / "concepts",
        out=tmp_path / "out",
        base=str(place / "base"),
        limits=Limits(steps=10, pictures=6, edge=64, regions=2, prompt=100),
    )
    studio = Studio(settings)
    assert studio.state.kind == "loading"
    assert studio.concepts() == []
    studio.start().wait(60)
    return studio


def test_what_is_asked_before_the_base_is_there_is_told_so(place: Path, tmp_path: Path) -> None:
    studio = Studio(AppSettings(library=place / "concepts", out=tmp_path / "out", base=str(place / "base")))
    with pytest.raises(InputError, match="still loading"):
        studio.check_loaded()
    studio.state = BaseState("failed", "base", "the file is damaged")
    with pytest.raises(InputError, match="the file is damaged"):
        studio.check_loaded()


def test_pictures_of_a_clock_that_was_set_back_are_newest_still(tmp_path: Path) -> None:
    history = History(tmp_path)
    image, said = Image.new("RGB", (8, 8)), Parameters("a dog")
    future = history.add(image, said, "1").rename(tmp_path / "29990101-000000-000000-1.png")
    second, third = (history.add(image, said, "1") for _ in range(2))
    assert history.newest(3) == [third, second, future]


def test_pictures_carry_their_concepts_and_the_base_is_as_before(studio: Studio) -> None:
    files = studio.generate(ANN, Request(CONFIG, WEIGHTS)).wait(60)
    again = studio.generate(ANN, Request(CONFIG, WEIGHTS)).wait(60)
    parameters = read_parameters(files[0])
    assert parameters.weights == WEIGHTS
    assert parameters.settings["Seed"] == "5"
    assert Image.open(files[0]).tobytes() == Image.open(again[0]).tobytes()
    assert studio.history.newest(9) == [again[0], files[0]]


def test_a_grid_has_a_row_for_each_factor_and_a_sheet(studio: Studio) -> None:
    config = replace(CONFIG, num_images=2)
    files = studio.generate(ANN, Request(config, WEIGHTS, axes=(Axis("weights", (0.0, 1.0)),))).wait(60)
    assert len(files) == 5
    assert files[-1].stem.endswith("grid")
    assert [read_parameters(file).weights["tom"] for file in files[:4]] == [0.0, 0.0, 0.5, 0.5]
    sheet = picture_draft(files[-1])
    assert (sheet.axes, sheet.num_images, sheet.weights) == ((("weights", "0, 1"),), 2, WEIGHTS), (
        "the whole grid, not its first row"
    )


def test_progress_is_told_with_previews(studio: Studio) -> None:
    seen: list[Progress] = []
    job = studio.generate(ANN, Request(replace(CONFIG, num_images=2), WEIGHTS))
    while not job.done.wait(0.001):
        if isinstance(job.update, Progress) and (not seen or seen[-1] is not job.update):
            seen.append(job.update)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert any(progress.preview for progress in seen)
    assert job.update.fraction == 1.0


def test_cancelling_keeps_the_pictures_that_are_done(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, num_images=6, num_inference_steps=10)
    keep, cancelled = studio.history.add, []

    def keep_and_cancel(*picture: Any) -> Path:
        file = keep(*picture)
        cancelled.append((studio.cancel(BOB), studio.cancel(ANN)))
        return file

    with monkeypatch.context() as patched:
        patched.setattr(studio.history, "add", keep_and_cancel)
        files = studio.generate(ANN, Request(config, WEIGHTS)).wait(60)
    assert (len(files), cancelled) == (1, [(0, 1)])
    assert studio.history.newest(9) == files[::-1]
    assert len(studio.generate(ANN, Request(CONFIG, WEIGHTS)).wait(60)) == 1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(replace(CONFIG, num_images=7), WEIGHTS), "7 pictures"),
        (Request(replace(CONFIG, num_images=3), WEIGHTS, axes=(Axis("weights", (0.0, 0.5, 1.0)),)), "9 pictures"),
        (Request(replace(CONFIG, num_inference_steps=11), {}), "11 steps"),
        (Request(CONFIG, {}, axes=(Axis("steps", (2, 11)),)), "grid: 11 steps"),
        (Request(CONFIG, {}, axes=(Axis("guidance", (1.0, float("nan"))),)), "guidance_scale is nan"),
        (Request(replace(CONFIG, width=4096), {}), "4096 pixels"),
        (Request(replace(CONFIG, prompt="x" * 101), {}), "101 characters"),
    ],
)
def test_limits(studio: Studio, request_: Request, words: str) -> None:
    with pytest.raises(InputError, match=words):
        studio.generate(ANN, request_)


def test_a_failure_leaves_the_studio_as_it_was(studio: Studio) -> None:
    with pytest.raises(InputError, match="rxe"):
        studio.generate(ANN, Request(CONFIG, {"rxe": 1.0})).wait(60)
    with pytest.raises(InputError, match="<rxe>"):
        studio.generate(ANN, Request(replace(CONFIG, prompt="a <rxe> dog"), WEIGHTS)).wait(60)
    assert len(studio.generate(ANN, Request(CONFIG, WEIGHTS)).wait(60)) == 1


def test_another_base_that_cannot_be_loaded_leaves_the_first(studio: Studio, tmp_path: Path) -> None:
    empty = tmp_path / "out" / "empty"
    empty.mkdir(parents=True)
    before = studio.state
    with pytest.raises(InputError, match="model_index"):
        studio.load(ANN, str(empty)).wait(60)
    assert studio.state == before
    assert len(studio.concepts()) == 2


def test_bases_are_named_in_allowed_folders_only(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for base in (str(tmp_path / "model"), "/etc", "../base", str(tmp_path)):
        with pytest.raises(InputError, match="may use"):
            studio.check_base(base)
    assert studio.check_base(" toybox ") == "toybox"


def test_a_base_that_is_loaded_stalls_no_picture_and_is_nobody_elses_to_stop(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(Engine, "load", lambda base: gate.wait(60) and pytest.fail("not found"))
    job = studio.load(ANN, "no/such")
    assert len(studio.generate(BOB, Request(PLAIN, {})).wait(60)) == 1
    assert studio.state.next == "no/such"
    again = studio.load(ANN, "no/such")
    with pytest.raises(InputError, match="requests are waiting"):
        studio.load(ANN, "no/such")
    studio.loads.cancel(ANN, again.id)
    gate.set()
    with pytest.raises(BaseException, match="not found"):
        job.wait(60)


def test_ids_of_the_hub_are_for_whoever_is_alone_with_the_page(studio: Studio) -> None:
    assert studio.check_base("owner/name") == "owner/name"
    studio.settings = replace(studio.settings, host="0.0.0.0", allow_remote=True)
    with pytest.raises(InputError, match="no models from the hub"):
        studio.check_base("owner/name")
    studio.settings = replace(studio.settings, hub=True)
    assert studio.check_base("owner/name") == "owner/name"


def test_what_takes_too_long_ends_with_what_is_finished(studio: Studio) -> None:
    studio.settings = replace(studio.settings, limits=replace(studio.settings.limits, seconds=0.0))
    job = studio.generate(ANN, Request(PLAIN, {}))
    assert (job.wait(60), job.state) == ([], "cancelled")


def test_a_prompt_of_too_many_tokens_is_refused(studio: Studio) -> None:
    studio.settings = replace(studio.settings, limits=replace(studio.settings.limits, tokens=8))
    job = studio.generate(ANN, Request(replace(CONFIG, prompt="a " + "<rex> " * 5), WEIGHTS))
    with pytest.raises(InputError, match="tokens in a prompt"):
        job.wait(60)


def test_what_a_visitor_left_behind_is_cancelled(studio: Studio) -> None:
    studio.settings = replace(studio.settings, limits=replace(studio.settings.limits, away=0.2))
    studio.presence.enter([BOB])
    left = studio.generate(ANN, Request(replace(PLAIN, num_images=6, num_inference_steps=10), {}))
    kept = studio.generate(BOB, Request(PLAIN, {}))
    until = time.monotonic() + 60
    while not left.cancelled and time.monotonic() < until:
        studio.sweep()
        time.sleep(0.01)
    assert left.wait(60) is not None
    assert (left.state, len(kept.wait(60))) == ("cancelled", 1)


def test_a_first_base_that_fails_says_so(tmp_path: Path) -> None:
    studio = Studio(AppSettings(base=str(tmp_path / "none"), out=tmp_path, library=tmp_path))
    with pytest.raises(InputError):
        studio.start().wait(60)
    assert studio.state.kind == "failed"
    with pytest.raises(InputError, match="no base is loaded"):
        studio.generate(ANN, Request(PLAIN, {})).wait(60)


@pytest.mark.parametrize("name", ["../../key.png", "/etc/passwd", "key.txt", "", "none.png"])
def test_the_history_gives_out_its_own_pictures_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "key.txt").write_text("1234")
    with pytest.raises(InputError, match="no picture"):
        History(tmp_path).find(name)
