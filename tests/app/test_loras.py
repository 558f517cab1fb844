"""LoRA files of other programs: into the library, into pictures, into the bin and back."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import make_place

from concepts import make_concept
from spectral_fusion.concept import export_lora
from spectral_fusion.errors import InputError
from spectral_fusion.picture import read_parameters
from spectral_fusion_app.create.desk import Desk
from spectral_fusion_app.library.desk import LibraryDesk
from spectral_fusion_app.page import mend_folders
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.visitors import Visitor
from spectral_fusion_app.web import Answer, served
from tiny import tiny_base

ANN = Visitor("browser", "a" * 32)


class Asking:
    """The functions of one place as its script calls them."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.functions = {function.__name__: function for function in served(answers)}
        self.cookies = {"spectral_fusion_visitor": ANN.id}

    def __call__(self, name: str, data: Any = None) -> Any:
        return self.functions[name](self, data)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    place = make_place(tmp_path_factory.mktemp("loras"))
    settings = AppSettings(library=place / "concepts", out=place / "out", base=str(place / "base"))
    settings.pictures.mkdir(parents=True)
    studio = Studio(settings)
    studio.start().wait(60)
    return studio


@pytest.fixture
def library(studio: Studio) -> Asking:
    return Asking(LibraryDesk(studio, studio.settings.out / "sent").answers())


def sent(studio: Studio, name: str) -> str:
    """A LoRA as another program would write it, uploaded."""
    folder = studio.settings.out / "sent"
    folder.mkdir(parents=True, exist_ok=True)
    concept = make_concept(tiny_base(), "style", band=5, seed=9, size=0.3)
    return str(export_lora({concept: 1.0}, folder / name, "kohya"))


def pixels(studio: Studio, **form: Any) -> np.ndarray:
    desk = Desk(studio, studio.settings.out / "sent")
    told = desk.create(ANN, {"prompt": "a dog", "steps": 4, "seed": "3", "width": 32, "height": 32, **form})
    job = next(job for job in studio.line.jobs(ANN) if job.id == told["id"])
    [path] = job.wait(120)
    return np.asarray(Image.open(path)).astype(int)


def test_a_lora_is_dropped_listed_drawn_with_removed_and_brought_back(studio: Studio, library: Asking) -> None:
    name = "soft_light_v2"
    assert library("add", {"path": sent(studio, "soft light (v2).safetensors")}) == {"name": name}
    card = next(card for card in library("library")["concepts"] if card.get("lora"))
    assert card["trigger"] == "", "its metadata name <style>, whose vectors are in another file"
    assert (card["name"], card["fits"], card["facts"]["Rank"]) == (name, True, str(card["rank"]))
    assert "already" in library("add", {"path": sent(studio, "soft light (v2).safetensors")})["error"]
    plain = pixels(studio)
    assert (pixels(studio, pinned=[name], concepts={name: 0.0}) == plain).all()
    styled = pixels(studio, pinned=[name], concepts={name: 1.0})
    assert (styled != plain).any()
    picture = studio.history.newest(1)[0]
    assert read_parameters(picture).weights == {name: 1.0}
    form = Desk(studio, studio.settings.out / "sent").picture(ANN, picture.name)["form"]
    assert (form["pinned"], form["missing"]) == ([name], [])
    pixels(studio, prompt="a <rex> dog", pinned=[name])
    assert read_parameters(studio.history.newest(1)[0]).weights == {"rex": 1.0, name: 1.0}
    assert library("remove", name) == {"name": name}
    assert not any(card.get("lora") for card in library("library")["concepts"])
    assert name in library("library")["removed"]
    assert library("restore", name) == {"name": name}
    assert studio.loras.list()[0].name == name


@pytest.mark.parametrize("name", ["../rex", "", "nobody", ".trash", "/etc/passwd"])
def test_names_that_are_paths_reach_no_lora(studio: Studio, name: str) -> None:
    assert name not in studio.loras
    for verb in (studio.loras.remove, studio.loras.restore, lambda name: studio.loras.get(name, {})):
        with pytest.raises(InputError, match="no LoRA"):
            verb(name)


def test_a_lora_with_a_taken_name_or_that_is_none_is_refused(studio: Studio, library: Asking) -> None:
    assert "concept 'rex' already" in library("add", {"path": sent(studio, "x.safetensors"), "name": "rex"})["error"]
    broken = studio.settings.out / "sent" / "broken.safetensors"
    broken.write_bytes(b"no file")
    assert "broken.safetensors" in library("add", {"path": str(broken)})["error"]
    studio.loras.folder.mkdir(exist_ok=True)
    (studio.loras.folder / "odd.json").write_text('{"name": "../odd"}', encoding="utf-8")
    (studio.loras.folder / "gone.json").write_text("[", encoding="utf-8")
    assert {info.name for info in studio.loras.list()} <= {"soft_light_v2"}
    assert [info.name for info in studio.library.list()] == ["rex", "tom"]


def test_a_concept_and_a_lora_never_have_one_name(studio: Studio, library: Asking) -> None:
    library("add", {"path": sent(studio, "style.safetensors"), "name": "kit"})
    assert "has a LoRA 'kit'" in library("rename", {"name": "tom", "to": "KIT"})["error"]
    assert "no text" in library("rename", {"name": "tom", "to": None})["error"]
    file = make_concept(tiny_base(), "kit", band=6).save(studio.settings.out / "sent" / "kit.safetensors")
    assert "has a LoRA 'kit'" in library("add", {"path": str(file)})["error"]
    library("remove", "kit")
    library("add", {"path": str(file)})
    assert "a concept 'kit' again" in library("restore", "kit")["error"]
    library("remove", "kit")
    library("add", {"path": sent(studio, "style.safetensors"), "name": "kit"})
    assert "has a LoRA 'kit'" in library("restore", "kit")["error"]
    assert {card["name"] for card in library("library")["concepts"]} >= {"rex", "tom", "kit"}
    library("remove", "kit")


def test_what_a_kill_left_of_a_lora_between_two_moves_comes_back(studio: Studio, library: Asking) -> None:
    library("add", {"path": sent(studio, "style.safetensors"), "name": "half"})
    folder = studio.loras.folder
    (folder / ".trash").mkdir(exist_ok=True)
    (folder / "half.json").rename(folder / ".trash" / "half.json")
    assert "half" in studio.loras.removed()
    studio.loras.restore("half")
    assert "half" in studio.loras
    leftover = folder / ".half.safetensors.abcdefgh.part"
    leftover.write_bytes(b"half")
    mend_folders(studio.settings)
    assert not leftover.exists()
    library("remove", "half")
