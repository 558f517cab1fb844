"""What Train, Library, Lab and the head ask of the server, without a browser."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serving import make_place
from test_create import ANN, BOB, Asking

from concepts import make_concept
from spectral_fusion.concept import Library
from spectral_fusion_app.lab.desk import LabDesk
from spectral_fusion_app.lab.evaluations import Evaluator
from spectral_fusion_app.lab.fusing import Fusing
from spectral_fusion_app.library.desk import LibraryDesk
from spectral_fusion_app.page import make_page
from spectral_fusion_app.processes import VerbProcess
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.shell.head import Head
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.train.begin import Begin
from spectral_fusion_app.train.desk import TrainDesk
from spectral_fusion_app.train.trainings import Trainings
from tiny import tiny_base
from training import draw_photos


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    place = make_place(tmp_path_factory.mktemp("places"))
    settings = AppSettings(library=place / "concepts", out=place / "out", base=str(place / "base"))
    studio = Studio(settings)
    studio.start().wait(60)
    return studio


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uploads")
    draw_photos(folder, count=6)
    return folder


@pytest.fixture
def trainings(studio: Studio, tmp_path: Path) -> Trainings:
    return Trainings(tmp_path / "trainings", studio.settings.library)


@pytest.fixture
def train(studio: Studio, trainings: Trainings, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> Asking:
    monkeypatch.setattr(VerbProcess, "start", lambda self, arguments: None)
    return Asking(TrainDesk(studio, Begin(studio, studio.settings, trainings), trainings, uploads), ANN)


@pytest.fixture
def library(studio: Studio, uploads: Path) -> Asking:
    return Asking(LibraryDesk(studio, uploads), ANN)


@pytest.fixture
def lab(studio: Studio, trainings: Trainings) -> Asking:
    evaluator = Evaluator(studio, trainings)
    return Asking(LabDesk(studio, Fusing(studio, studio.settings.fused), evaluator), ANN)


def photos(uploads: Path) -> list[str]:
    return [str(path) for path in sorted(uploads.glob("*.png"))]


def test_photos_are_looked_at_and_counted(train: Asking, uploads: Path) -> None:
    told = train("photos", {"files": photos(uploads)})
    assert [card["name"] for card in told["cards"]] == [f"{n}.png" for n in range(6)]
    assert told["cards"][0]["url"].startswith("data:image/webp")
    assert told["advice"] == "6 photos: a good number."
    assert "too few" in train("photos", {"files": photos(uploads)[:1]})["advice"]
    assert "no pictures yet" in train("photos", {})["error"]


def test_a_numbered_folder_gives_the_kind_and_long_pictures_are_named(
    studio: Studio, train: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = studio.settings.out / "sets"
    monkeypatch.setattr(type(studio.settings), "folders", (root,))
    draw_photos(root / "one" / "10_rex dog")
    Image.new("RGB", (400, 60)).save(root / "one" / "10_rex dog" / "wide.png")
    told = train("photos", {"folder": str(root / "one")})
    assert told["class"] == "dog"
    [wide] = [card for card in told["cards"] if card["name"] == "wide.png"]
    assert "is seen at a time" in wide["warnings"][0]
    draw_photos(root / "one" / "5_tom cat")
    assert "rex" in train("photos", {"folder": str(root / "one")})["error"]
    both = train("photos", {"folder": str(root / "one"), "class": "pet"})
    assert both["class"] == "pet"
    assert len(both["cards"]) > len(told["cards"])


def test_a_training_starts_with_its_captions(train: Asking, trainings: Trainings, uploads: Path) -> None:
    asked = {
        "files": photos(uploads),
        "name": "kit",
        "class": "cat",
        "preset": "quick",
        "captions": {"001.png": "hello"},
    }
    told = train("train", asked)
    assert told["name"] == "kit"
    [training] = trainings.list()
    assert (training.images / "001.txt").read_text(encoding="utf-8") == "hello"
    whole = train("training", {"id": told["id"]})
    assert len(whole["photos"]) == 6
    assert whole["words"].startswith("failed")
    assert not whole["resumable"]
    assert train("remove", told["id"]) == told["id"]
    assert train("trainings")["trainings"] == []


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"name": ""}, "name", "empty"),
        ({"class": ""}, "class", "empty"),
        ({"name": "rex"}, "name", "already"),
        ({"name": "REX"}, "", "already"),
        ({"name": "../evil"}, "name", "cannot name"),
        ({"settings": {"steps": "many"}}, "steps", "whole number"),
        ({"settings": {"steps": "1e9"}}, "", ""),
        ({"settings": {"steps": 10**9}}, "", "page allows"),
        ({"files": ["/etc/passwd"]}, "", "not in a folder"),
        ({"files": []}, "", "no pictures"),
    ],
)
def test_what_is_wrong_with_a_training_is_said_at_once(
    train: Asking, trainings: Trainings, uploads: Path, changes: dict[str, Any], field: str, words: str
) -> None:
    asked = {"files": photos(uploads), "name": "kit", "class": "cat", "preset": "quick"} | changes
    told = train("train", asked)
    assert words in told["error"]
    assert field in ("", told["field"])
    assert trainings.list() == []


def test_presets_say_their_steps_and_time(train: Asking) -> None:
    presets = train("desk")["presets"]
    assert [preset["name"] for preset in presets] == ["quick", "balanced", "careful"]
    assert presets[2]["steps"] == 4 * presets[0]["steps"]
    assert all(preset["time"] and preset["gives"] for preset in presets)


def test_the_library_is_shown_changed_and_brought_back(studio: Studio, library: Asking, uploads: Path) -> None:
    shown = library("library")
    assert [one["name"] for one in shown["concepts"]] == ["rex", "tom"]
    assert shown["unreadable"] == {}
    broken = studio.settings.library / "bad" / "concept.safetensors"
    broken.parent.mkdir()
    broken.write_bytes(b"no concept")
    [(name, why)] = library("library")["unreadable"].items()
    assert name == "bad"
    assert why
    assert str(studio.settings.library) not in why
    assert library("remove", "bad") == {"name": "bad"}
    assert library("library")["unreadable"] == {}
    assert shown["concepts"][0]["fits"]
    assert "rex" in shown["bands"]
    assert library("retrigger", {"name": "tom", "trigger": "<tommy>"}) == {"name": "tom"}
    assert "belongs to" in library("retrigger", {"name": "rex", "trigger": "<TOMMY>"})["error"]
    library("retrigger", {"name": "tom", "trigger": "<tom>"})
    assert library("note", {"name": "rex", "notes": "<b>good</b>", "tags": "a, b, a"}) == {"name": "rex"}
    [rex, _] = library("library")["concepts"]
    assert (rex["notes"], rex["tags"]) == ("<b>good</b>", ["a", "b"])
    assert "tags" in library("note", {"name": "rex", "tags": "x" * 100})["error"]
    assert library("remove", "tom") == {"name": "tom"}
    assert library("library")["removed"][0] == "tom"
    assert library("restore", "tom") == {"name": "tom"}
    [file] = library("export", {"name": "rex", "to": "concept"})["files"]
    assert file["name"] == "rex.safetensors"
    assert file["url"].startswith("shown/exports/")
    good = make_concept(tiny_base(), "sue", band=3).save(uploads / "sue.safetensors")
    assert library("add", {"path": str(good)}) == {"name": "sue"}
    assert "already" in library("add", {"path": str(good)})["error"]
    assert "not in a folder" in library("add", {"path": "/etc/passwd"})["error"]
    library("remove", "sue")


@pytest.mark.parametrize("name", ["../base", "/etc/passwd", "..", "", "nobody", ".trash", None, 3])
def test_names_that_are_paths_reach_nothing(library: Asking, name: Any) -> None:
    for function, data in (
        ("remove", name),
        ("restore", name),
        ("retrigger", {"name": name, "trigger": "<x>"}),
        ("export", {"name": name, "to": "concept"}),
        ("note", {"name": name}),
    ):
        assert library(function, data)["error"], function


def test_concepts_are_checked_and_saved_together(studio: Studio, lab: Asking) -> None:
    told = lab("check", ["rex", "tom"])
    assert told["disjoint"]
    assert 'class="much"' not in told["html"]
    free = len(Library(studio.settings.library).list())
    assert f"room for {4 - free} more" in told["html"] or "room for" in told["html"]
    lora = lab("lora", {"weights": {"rex": 1, "tom": 0.5}, "to": "kohya"})["files"]
    assert len(lora) == 3
    id = lab("save", {"weights": {"rex": 1}, "folder": "both"})["id"]
    studio.line.jobs(ANN)[-1].wait(60)
    assert lab("saved", id)["path"].endswith("both")
    assert "exists already" in lab("save", {"weights": {"rex": 1}, "folder": "both"})["error"]
    assert "cannot name" in lab("save", {"weights": {"rex": 1}, "folder": "../x"})["error"]
    assert "number" in lab("lora", {"weights": {"rex": "x"}, "to": "kohya"})["error"]
    assert "chosen" in lab("lora", {"weights": {}, "to": "kohya"})["error"]
    assert "two or more" in lab("evaluate", {"names": [], "seeds": 1, "steps": 5})["error"]


def test_the_room_that_is_left_counts_the_whole_library(studio: Studio, lab: Asking, library: Asking) -> None:
    import re

    [of_two] = re.findall(r"room for (\d+)", lab("check", ["rex", "tom"])["html"])
    [of_one] = re.findall(r"room for (\d+)", lab("check", ["rex"])["html"])
    [of_all] = re.findall(r"room for (\d+)", library("library")["bands"])
    assert of_one == of_two == of_all


def test_the_head_tells_news_and_asks_before_others_lose_their_base(studio: Studio, trainings: Trainings) -> None:
    ann, bob = Asking(Head(studio, trainings), ANN), Asking(Head(studio, trainings), BOB)
    before = ann("look")
    assert before["state"]["kind"] == "ready"
    Library(studio.settings.library).add(make_concept(tiny_base(), "kit", band=4))
    assert ann("look")["library"] != before["library"]
    Library(studio.settings.library).remove("kit")
    job = studio.line.submit(BOB, lambda job: job._cancelled.wait(60))
    assert "would lose" in ann("load", {"base": "toybox"})["confirm"]
    assert "confirm" not in bob("load", {"base": "nosuch/../model"})
    assert "may use" in ann("load", {"base": "/etc", "sure": True})["error"]
    studio.cancel(BOB)
    job.wait(60)


def test_no_listener_is_drawn_anew_with_a_part_of_the_page(tmp_path: Path) -> None:
    """A page that still shows the part of before would ask for a listener that is gone: an error 500 under load."""
    settings = AppSettings(out=tmp_path, library=tmp_path)
    page = make_page(Studio(settings), settings)
    assert page.renderables == []
