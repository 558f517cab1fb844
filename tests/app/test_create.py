"""What Create asks of the server, without a browser."""

import base64
import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from serving import make_place

from spectral_fusion.base.painted import tensor_text
from spectral_fusion.picture import read_parameters
from spectral_fusion_app.create.desk import Desk
from spectral_fusion_app.create.history import History
from spectral_fusion_app.create.starts import MOST, Starts
from spectral_fusion_app.settings import AppSettings, Limits
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.visitors import Visitor
from spectral_fusion_app.web import served
from tiny import tiny_base, tiny_controlnet


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


ANN, BOB = Visitor("browser", "a" * 32), Visitor("browser", "b" * 32)
# One black pixel as a PNG.
EMPTY = base64.b64encode(png(Image.new("L", (1, 1)))).decode()
LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]


class Asking:
    """The server's functions as the script of one visitor calls them."""

    def __init__(self, desk: Desk, visitor: Visitor) -> None:
        self.functions = {function.__name__: function for function in served(desk.answers())}
        self.cookies = {"spectral_fusion_visitor": visitor.id}

    def __call__(self, name: str, data: Any = None) -> Any:
        return self.functions[name](self, data)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    place = make_place(tmp_path_factory.mktemp("create"))
    limits = Limits(steps=20, edge=128)
    tiny_controlnet(tiny_base().unet).save_pretrained(place / "models" / "edges")
    folders = {"library": place / "concepts", "out": place / "out", "roots": (place / "models",)}
    settings = AppSettings(**folders, base=str(place / "base"), limits=limits)
    studio = Studio(settings)
    studio.start().wait(60)
    return studio


@pytest.fixture
def desk(studio: Studio, tmp_path: Path) -> Desk:
    """With a history of the test's own."""
    for visitor in (ANN, BOB):
        studio.cancel(visitor)
    studio.settings = replace(studio.settings, out=tmp_path)
    studio.history = History(studio.settings.pictures)
    studio.history.folder.mkdir()
    studio.starts = Starts(studio.settings.starts, studio.settings.limits.edge)
    return Desk(studio, tmp_path / "uploads")


@pytest.fixture
def ann(desk: Desk) -> Asking:
    return Asking(desk, ANN)


def form(**changes: Any) -> dict[str, Any]:
    return {"prompt": "a <rex> dog and a <tom> cat", "steps": 2, "seed": "7", "width": 32, "height": 32} | changes


def create(ann: Asking, **changes: Any) -> list[str]:
    """Names of the pictures."""
    told = ann("create", form(**changes))
    assert "error" not in told, told
    return finished(ann, told["id"])["pictures"]


def finished(ann: Asking, id: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        job = next(job for job in ann("jobs")["jobs"] if job["id"] == id)
        if job["state"] not in ("waiting", "running", "stopping"):
            return job
        time.sleep(0.02)
    raise AssertionError("it does not end")


def parameters(desk: Desk, name: str) -> Any:
    return read_parameters(desk.studio.history.find(name))


def test_a_form_becomes_pictures_in_the_order_of_their_seeds(desk: Desk, ann: Asking) -> None:
    names = create(ann, pictures=3, concepts={"rex": 0.5})
    assert [parameters(desk, name).settings["Seed"] for name in names] == ["7", "8", "9"]
    assert parameters(desk, names[0]).weights == {"rex": 0.5, "tom": 1.0}
    shown = ann("pictures")
    assert [picture["name"] for picture in shown["pictures"]] == names[::-1]
    assert (shown["pictures"][0]["width"], shown["count"]) == (32, 3)


def test_regions_hold_their_concept_in_the_order_of_the_form(desk: Desk, ann: Asking) -> None:
    regions = [{"concept": "tom", "prompt": "", "box": LEFT}, {"concept": "", "prompt": "a red ball", "box": RIGHT}]
    [name] = create(ann, regions=regions, concepts={"tom": 0.5})
    told = json.loads(parameters(desk, name).settings["Regions"])
    assert told[0] == {"prompt": "a dog and a <tom> cat", "box": LEFT, "concepts": {"tom": 0.5}}
    assert told[1] == ["a red ball", RIGHT]
    kept = ann("picture", name)["form"]["regions"]
    assert [(region["concept"], region["prompt"], region["box"]) for region in kept] == [
        ("tom", "", LEFT),
        ("", "a red ball", RIGHT),
    ]
    assert desk.studio._engine is not None
    assert not desk.studio._engine.base.fused


def test_a_place_that_was_found_is_shown_and_gives_the_picture_again(desk: Desk, ann: Asking) -> None:
    place = torch.zeros(4, 4)
    place[:, :2] = 1
    [name] = create(ann, regions=[{"concept": "rex", "box": None, "mask": tensor_text(place)}], steps=4)
    kept = ann("picture", name)["form"]
    [region] = kept["regions"]
    assert (region["concept"], region["box"]) == ("rex", [0.0, 0.0, 0.5, 1.0])
    kept.pop("missing")
    [again] = finished(ann, ann("create", kept)["id"])["pictures"]
    assert desk.studio.history.find(again).read_bytes() == desk.studio.history.find(name).read_bytes()


def mask(left: float = 0.0, right: float = 0.5) -> str:
    """A painted mask over the columns of these fractions."""
    painted = torch.zeros(8, 8)
    painted[:, round(left * 8) : round(right * 8)] = 1
    return tensor_text(painted)


def pixels(desk: Desk, name: str) -> np.ndarray:
    return np.asarray(Image.open(desk.studio.history.find(name)).convert("RGB")).astype(int)


def send(desk: Desk, image: Image.Image) -> str:
    desk.uploads.mkdir(exist_ok=True)
    image.save(desk.uploads / "sent.png")
    return str(desk.uploads / "sent.png")


def test_a_picture_begins_from_a_sent_one_where_it_is_painted_and_says_so(desk: Desk, ann: Asking) -> None:
    kept = ann("begin", {"path": send(desk, Image.new("RGB", (32, 32), (200, 30, 60)))})
    assert (kept["width"], kept["height"]) == (32, 32)
    start = {**kept, "strength": 0.9, "mask": mask()}
    [name] = create(ann, start=start, steps=10)
    made = pixels(desk, name)
    assert (made[:, 20:] == (200, 30, 60)).all(), "what is not painted stays"
    assert np.abs(made[:, :12] - (200, 30, 60)).mean() > 5
    told = ann("picture", name)["form"]
    assert told["start"] == start
    [again] = finished(ann, ann("create", told)["id"])["pictures"]
    assert (pixels(desk, again) == made).all()
    [whole] = create(ann, start={**start, "mask": None}, steps=10)
    assert np.abs(pixels(desk, whole)[:, 20:] - (200, 30, 60)).mean() > 5
    desk.studio.starts.find(kept["picture"]).unlink()
    assert ann("picture", name)["form"]["start"] is None
    assert "choose it again" in ann("picture", name)["form"]["lost"]
    assert ann("create", form(start=start))["field"] == "start"


def test_a_control_picture_is_read_by_a_controlnet_of_a_root_and_found_again(desk: Desk, ann: Asking) -> None:
    told = ann("desk")["control"]
    assert told["possible"]
    assert [Path(model).name for model in told["models"]] == ["edges"]
    kept = ann("begin", {"path": send(desk, Image.new("RGB", (32, 32), (200, 30, 60)))})
    control = {**kept, "model": told["models"][0], "scale": 0.5, "start": 0.0, "end": 1.0}
    [plain], [name] = create(ann), create(ann, control=control)
    assert np.abs(pixels(desk, name) - pixels(desk, plain)).mean() > 0.5
    told = ann("picture", name)["form"]
    assert told["control"] == {**control, "model": "edges"}, "the folder's name stands for it, not where it lies"
    [again] = finished(ann, ann("create", told)["id"])["pictures"]
    assert (pixels(desk, again) == pixels(desk, name)).all()
    [large] = finished(ann, ann("finish", {"name": name, "how": "upscale", "by": 2})["id"])["pictures"]
    assert parameters(desk, large).settings["ControlNet"] == "edges"
    for model, words in (("nowhere", "'nowhere' does not exist"), ("../edges", "not in a folder")):
        told = ann("create", form(control={**control, "model": model}))
        assert (told["field"], words in told["error"]) == ("control", True), told
    desk.studio.starts.find(kept["picture"]).unlink()
    assert ann("picture", name)["form"]["control"] is None
    assert "the control picture is no longer" in ann("picture", name)["form"]["lost_control"]


def test_a_finished_picture_is_enlarged_and_its_subjects_are_refined(desk: Desk, ann: Asking) -> None:
    [plain] = create(ann, prompt="a <rex> dog", steps=4)
    assert "mark the subjects" in ann("finish", {"name": plain, "how": "refine"})["error"]
    job = finished(ann, ann("finish", {"name": plain, "how": "upscale", "by": 2, "strength": 0.5})["id"])
    [large] = job["pictures"]
    assert (job["pass"], job["passes"], job["fraction"]) == (1, 1, 1.0)
    assert pixels(desk, large).shape == (64, 64, 3)
    assert parameters(desk, large).settings["Hires strength"] == "0.5"
    regions = [{"concept": "rex", "prompt": "", "box": [0.0, 0.25, 0.25, 0.5]}]
    [fine] = finished(ann, ann("finish", {"name": large, "how": "refine", "regions": regions})["id"])["pictures"]
    change = np.abs(pixels(desk, fine) - pixels(desk, large)).sum(2)
    assert change[16:32, :16].any()
    assert not change[:, 40:].any(), "away from the region, not a pixel is changed"
    sheet = create(ann, axes=[{"setting": "steps", "values": "1, 2"}])[-1]
    assert "sheet" in ann("finish", {"name": sheet, "how": "upscale"})["error"]


def test_a_pass_after_the_first_counts_in_the_progress(ann: Asking) -> None:
    job = finished(ann, ann("create", form(upscale=2, steps=3, upscale_strength=1.0))["id"])
    assert (job["pass"], job["passes"], job["fraction"]) == (2, 2, 1.0)


def test_a_painted_region_keeps_its_place_and_only_the_newest_starts_stay(
    desk: Desk, ann: Asking, tmp_path: Path
) -> None:
    [name] = create(ann, regions=[{"concept": "rex", "box": LEFT, "mask": mask(0.5, 1.0)}])
    [region] = ann("picture", name)["form"]["regions"]
    assert (region["box"], region["mask"]) == (RIGHT, mask(0.5, 1.0))
    starts = Starts(tmp_path / "starts", edge=16)
    for shade in range(MOST + 3):
        Image.new("RGB", (32, 24), (shade, 0, 0)).save(tmp_path / "one.png")
        kept = starts.keep(tmp_path / "one.png")
    assert starts.image(kept).size == (16, 12), "no larger than a picture that is made"
    assert len(list(starts.folder.iterdir())) == MOST


def test_the_model_may_be_asked_to_find_the_place(ann: Asking) -> None:
    assert len(create(ann, regions=[{"concept": name, "box": None} for name in ("rex", "tom")], steps=4)) == 1


def test_a_concept_may_act_in_a_part_of_the_steps(desk: Desk, ann: Asking) -> None:
    [name] = create(ann, spans={"rex": [0.5, 1.0], "tom": [0.0, 1.0]}, steps=4)
    assert parameters(desk, name).settings["Concept steps"] == '{"rex": [0.5, 1.0]}'
    assert ann("picture", name)["form"]["spans"] == {"rex": [0.5, 1.0]}


def test_a_picture_gives_its_form_back_and_that_gives_the_picture(desk: Desk, ann: Asking) -> None:
    [name] = create(ann, concepts={"rex": 0.7}, negative="ugly", guidance=3.0)
    told = ann("picture", name)["form"]
    assert told.pop("missing") == told.pop("left_out") == []
    [again] = finished(ann, ann("create", told)["id"])["pictures"]
    assert desk.studio.history.find(again).read_bytes() == desk.studio.history.find(name).read_bytes()


def test_what_a_picture_of_another_tool_loses_is_named(desk: Desk, ann: Asking) -> None:
    path = desk.uploads / "theirs.png"
    path.parent.mkdir()
    info = PngImagePlugin.PngInfo()
    said = "a dog\nSteps: 5, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 32x32, Hires upscaler: Latent"
    info.add_text("parameters", said)
    Image.new("RGB", (32, 32)).save(path, pnginfo=info)
    form = ann("restore", str(path))["form"]
    assert form["prompt"] == "a dog"
    assert form["left_out"] == ["Hires upscaler: 'Latent'"]


def test_case_of_triggers_does_not_matter(desk: Desk, ann: Asking) -> None:
    [name] = create(ann, prompt="a <REX> dog")
    assert parameters(desk, name).prompt == "a <rex> dog"
    assert parameters(desk, name).weights == {"rex": 1.0}


def test_a_grid_of_two_settings_and_its_sheet(desk: Desk, ann: Asking) -> None:
    axes = [{"setting": "weight of rex", "values": "0, 1"}, {"setting": "steps", "values": "1, 2, 3"}]
    names = create(ann, axes=axes)
    assert len(names) == 7
    assert [parameters(desk, name).settings["Steps"] for name in names[:6]] == ["1", "2", "3"] * 2
    assert [parameters(desk, name).weights["rex"] for name in names[:6]] == [0.0] * 3 + [1.0] * 3
    sheet = desk.studio.history.find(names[-1])
    assert Image.open(sheet).width > 3 * 192, "small pictures are large on a sheet, so that its labels have room"
    told = ann("picture", sheet.name)["form"]
    assert told["axes"] == axes
    assert (told["concepts"], told["steps"]) == ({"rex": 1.0, "tom": 1.0}, 2)


def test_a_grid_of_seeds_and_samplers(desk: Desk, ann: Asking) -> None:
    names = create(ann, axes=[{"setting": "sampler", "values": "Euler, DPM++ 2M"}], pictures=2)
    assert [parameters(desk, name).settings["Sampler"] for name in names[:4]] == ["Euler"] * 2 + ["DPM++ 2M"] * 2
    assert [parameters(desk, name).settings["Seed"] for name in names[:4]] == ["7", "8"] * 2


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"prompt": " "}, "prompt", "empty"),
        ({"prompt": "a <rxe> dog"}, "prompt", "did you mean <rex>"),
        ({"seed": "-5"}, "seed", "whole number"),
        ({"seed": "9" * 30}, "seed", "whole number"),
        ({"steps": 0}, "steps", "not 0"),
        ({"steps": "many"}, "steps", "cannot be used"),
        ({"steps": 10**9}, "steps", ""),
        ({"width": 65}, "width", "multiple of 8"),
        ({"guidance": -1}, "guidance", ""),
        ({"sampler": "Oiler"}, "sampler", ""),
        ({"pictures": 100}, "pictures", "give 1 to 36"),
        ({"prompt": "x" * 3000}, "prompt", "characters"),
        ({"regions": [{"box": LEFT}]}, "regions", "no concept"),
        ({"spans": {"rex": [0.9, 0.1]}}, "", "acts from"),
        ({"regions": [{"box": [0, 0, 2, 1], "prompt": "a cat"}]}, "regions", "outside"),
        ({"regions": [{"box": "x", "prompt": "a cat"}]}, "regions", "cannot be used"),
        ({"axes": [{"setting": "weights", "values": "-1e9, nan"}]}, "grid", "beyond"),
        ({"axes": [{"setting": "steps", "values": "a"}]}, "grid", "no numbers"),
        ({"axes": [{"setting": "colour", "values": "1"}]}, "grid", "no setting"),
        ({"axes": [{"setting": "sampler", "values": "Oiler"}]}, "grid", "no sampler"),
        ({"axes": [{"setting": "steps", "values": "1"}, {"setting": "steps", "values": "2"}]}, "grid", "twice"),
        ({"prompt": "a dog", "axes": [{"setting": "weights", "values": "0, 1"}]}, "grid", "weights of concepts"),
        ({"detail": 0.4}, "detail", "mark each subject"),
        ({"upscale": 8}, "upscale", "upscale is 8"),
        ({"upscale": 4, "width": 64, "height": 64}, "width", "pixels on an edge"),
        ({"start": {"picture": "../../key"}}, "start", "no longer"),
        ({"start": {"picture": "0123456789", "mask": "no mask"}}, "start", "cannot be read"),
        ({"start": {"picture": "0123456789", "mask": EMPTY}}, "start", "nothing painted"),
        ({"start": {"strength": 1}}, "start", "cannot be used"),
        ({"control": {"picture": "0123456789"}}, "control", "no ControlNet"),
        ({"control": {"picture": "0123456789", "model": "edges"}}, "control", "no longer"),
        ({"control": {"picture": "0123456789", "model": "edges", "end": 0}}, "control", "from 0 to 0"),
        ({"control": {"picture": "../../key", "model": "edges"}}, "control", "no longer"),
        ({"control": {"picture": "0123456789", "scale": "much"}}, "control", "cannot be used"),
        ({"regions": [{"concept": "rex", "box": LEFT, "mask": EMPTY}]}, "regions", "nothing painted"),
        ({"prompt": 5}, "prompt", "cannot be used"),
        ({"prompt": "\ud800"}, "", "half a character"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_before_anything_is_made(
    desk: Desk, ann: Asking, changes: dict[str, Any], field: str, words: str
) -> None:
    told = ann("create", form(**changes))
    if "id" in told:  # some things only the base can tell
        told = finished(ann, told["id"])
    assert words in told["error"]
    assert told["field"] == field
    assert desk.studio.history.newest(1) == []


def test_each_visitor_sees_and_stops_his_own_jobs_and_finds_them_again(desk: Desk, ann: Asking) -> None:
    bob = Asking(desk, BOB)
    long = ann("create", form(steps=20, pictures=36))["id"]
    waiting = [ann("create", form(seed=str(n)))["id"] for n in range(2)]
    other = bob("create", form())["id"]
    assert bob("cancel", long) == 0
    assert bob("jobs")["others"] == 3
    ann("move", {"id": waiting[1], "places": -1})
    reloaded = Asking(desk, ANN)
    assert [job["id"] for job in reloaded("jobs")["jobs"]][-3:] == [long, waiting[1], waiting[0]]
    assert reloaded("cancel", waiting[0]) == 1
    assert reloaded("cancel", long) == 1
    assert finished(ann, long)["state"] == "cancelled"
    assert finished(bob, other)["state"] == "done"
    assert finished(ann, waiting[1])["state"] == "done"


def test_progress_brings_a_preview_once(ann: Asking) -> None:
    id = ann("create", form(steps=20, pictures=8))["id"]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        job = ann("jobs")["jobs"][-1]
        if "preview" in job:
            assert job["preview"].startswith("data:image/png")
            assert 0 < job["fraction"] <= 1
            break
    else:
        raise AssertionError("no preview")
    ann("cancel", id)


def test_stars_and_the_bin(desk: Desk, ann: Asking) -> None:
    first, second = create(ann, pictures=2)
    ann("star", {"name": first, "on": True})
    assert [picture["name"] for picture in ann("pictures", {"starred": True})["pictures"]] == [first]
    assert ann("remove", first) == first
    assert [picture["name"] for picture in ann("pictures")["pictures"]] == [second]
    assert ann("unremove", first)["name"] == first
    assert len(ann("pictures")["pictures"]) == 2


@pytest.mark.parametrize("name", ["../../key.png", "/etc/passwd", "", ".stars.json", None, 5])
@pytest.mark.parametrize("function", ["picture", "remove", "unremove", "restore"])
def test_names_that_are_paths_reach_nothing(ann: Asking, function: str, name: Any) -> None:
    assert ann(function, name)["error"]


@pytest.mark.parametrize("data", [None, [], "x", 5, {"name": []}, {"id": {}, "places": "x"}, {"skip": "x"}])
@pytest.mark.parametrize("function", ["jobs", "create", "begin", "finish", "move", "star", "pictures", "picture"])
def test_odd_requests_have_an_answer(ann: Asking, function: str, data: Any) -> None:
    ann(function, data)


def test_a_file_elsewhere_is_no_upload(desk: Desk, ann: Asking, tmp_path: Path) -> None:
    [name] = create(ann)
    picture = desk.studio.history.find(name)
    assert "not in a folder" in ann("restore", str(picture))["error"]
    desk.uploads.mkdir()
    sent = desk.uploads / "sent.png"
    sent.write_bytes(picture.read_bytes())
    assert ann("restore", str(sent))["form"]["seed"] == "7"


def test_a_first_visit_is_offered_a_picture_of_two_that_are_there(desk: Desk, ann: Asking) -> None:
    welcome = ann("desk")["welcome"]
    assert welcome["names"] == ["rex", "tom"]
    create(ann, prompt=welcome["prompt"], regions=welcome["regions"])
    assert ann("desk")["welcome"] is None
