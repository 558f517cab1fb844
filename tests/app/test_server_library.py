"""A running server's trainings, concepts and fusions, asked by programs and by visitors who mean harm."""

import json
import pickle
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from safetensors.torch import load_file
from serving import Server, make_place, serve
from test_server import client, wait_until_ready

from concepts import make_concept
from spectral_fusion.concept import Library, read_info
from tiny import tiny_base
from training import draw_photos

QUICK = {"rank": 4, "steps": 3, "batch_size": 2, "resolution": 32, "sample_every": 2}
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = make_place(tmp_path_factory.mktemp("server") / "place")  # what climbs out of it shows beside it
    draw_photos(place / "photos" / "dog", count=6)
    draw_photos(place / "private" / "dog")
    (place / "photos" / "link").symlink_to(place / "private")
    (place / "photos" / "mixed").mkdir()
    (place / "photos" / "mixed" / "0.png").write_bytes((place / "photos" / "dog" / "0.png").read_bytes())
    (place / "photos" / "mixed" / "0.txt").symlink_to(place / "secret.txt")
    (place / "secret.txt").write_text("1234")
    with serve(place, "--root", "photos") as server:
        wait_until_ready(client(server))
        yield server


@pytest.fixture
def user(server: Server, tmp_path: Path) -> Client:
    return client(server, download_files=str(tmp_path / "downloads"))


def train(user: Client, folder: str = "", images: list[Any] | None = None, **changes: Any) -> dict[str, Any]:
    asked = {"captions": {}, "name": "kit", "class_word": "cat", "preset": "quick", "replace": False, "settings": QUICK}
    return user.predict(**{"images": images, "folder": folder} | asked | changes, api_name="/train")


def ended(user: Client, id: str, seconds: float = 180) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        training = next(one for one in user.predict(api_name="/list_trainings") if one["id"] == id)
        if training["state"] not in ("preparing", "training", "stopping"):
            return training
        time.sleep(0.2)
    raise AssertionError(training)


def library(server: Server) -> Library:
    return Library(server.place / "concepts")


@pytest.mark.slow
def test_a_training_and_a_generation_at_once_both_finish(server: Server, user: Client) -> None:
    files = [handle_file(file) for file in sorted((server.place / "photos" / "dog").iterdir())]
    captions = {"001.png": f"{EVIL} a <TOK> cat", "002.png": ""}
    started = train(user, images=files, captions=captions)
    waiting = train(user, images=files, name="tim")
    assert waiting["state"] == "waiting"
    assert user.predict(waiting["id"], api_name="/cancel_training")["state"] == "stopped"
    pictures = user.predict(prompt="a <rex> dog", steps=2, num_images=2, api_name="/generate")
    assert len(pictures) == 2
    training = ended(user, started["id"])
    assert (training["state"], training["step"], training["error"]) == ("finished", 3, "")
    assert library(server).info("kit").class_word == "cat"
    copies = server.place / "out" / "trainings" / started["id"] / "images"
    assert (copies / "001.txt").read_text(encoding="utf-8") == f"{EVIL} a <TOK> cat"
    assert "kit" in [concept["name"] for concept in user.predict(api_name="/concepts")]
    pictures = user.predict(prompt="a <kit> cat", steps=1, api_name="/generate")
    assert len(pictures) == 1


@pytest.mark.parametrize(
    "folder",
    [
        "/etc",
        "../private",
        "photos/../private/dog",
        "private/dog",
        "photos/link/dog",
        "photos/mixed",
        "photos/none",
        "~",
    ],
)
def test_folders_and_links_out_of_the_roots_train_nothing(server: Server, user: Client, folder: str) -> None:
    for path in (folder, str(server.place / folder)):
        with pytest.raises(AppError) as caught:
            train(user, folder=path)
        assert "Traceback" not in str(caught.value)
        assert "1234" not in str(caught.value)
    assert not [one for one in user.predict(api_name="/list_trainings") if one["name"] not in ("kit", "tim")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../../evil"}, "cannot name a concept"),
        ({"name": "/etc/cron.d/evil"}, "cannot name a concept"),
        ({"name": EVIL}, "cannot name a concept"),
        ({"name": ""}, "name"),
        ({"name": "rex"}, "already"),
        ({"settings": {"steps": 0}}, "steps"),
        ({"settings": {"library": "/tmp"}}, "no setting"),
        ({"settings": {"class_images": "/etc"}}, "not in a folder"),
        ({"settings": {"base": "/etc"}}, "not in a folder"),
        ({"captions": {"../../secret.txt": "x"}}, "no picture"),
        ({"captions": {"/etc/passwd": "x"}}, "no picture"),
        ({"folder": ""}, "no pictures"),
    ],
)
def test_bad_trainings_are_refused_in_one_readable_line(server: Server, changes: dict[str, Any], words: str) -> None:
    user = client(server)
    before = user.predict(api_name="/list_trainings")
    with pytest.raises(AppError) as caught:
        train(user, **{"folder": "photos/dog", "name": "tim"} | changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value).strip()
    assert user.predict(api_name="/list_trainings") == before
    assert not list(server.place.parent.rglob("evil*"))


def ask(server: Server, endpoint: str, *data: Any) -> str:
    """The answer in plain HTTP: `gradio_client` would upload the files that are named."""
    url = f"{server.url}gradio_api/call/{endpoint}"
    request = urllib.request.Request(url, json.dumps({"data": data}).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/{event}") as answer:
        return answer.read().decode()


def test_files_of_the_server_are_no_uploads(server: Server) -> None:
    trainings = server.place / "out" / "trainings"
    before = sorted(trainings.glob("*"))
    for path in ("photos/dog/0.png", "concepts/rex/concept.safetensors", "secret.txt"):
        file = {"path": str(server.place / path), "meta": {"_type": "gradio.FileData"}}
        told = ask(server, "train", [file], "", {}, "tim", "dog", "quick", False, QUICK)
        assert "event: error" in told
        assert "event: complete" not in told
        told = ask(server, "import_concept", file, "stolen", "<stolen>", False)
        assert "event: error" in told
        assert "event: complete" not in told
    assert not library(server).path("stolen").exists()
    assert sorted(trainings.glob("*")) == before


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that are no concept, and a word of what is to be said of each."""
    good = make_concept(tiny_base(), "sue").save(folder / "sue.safetensors").read_bytes()
    length = (2**62).to_bytes(8, "little")
    contents = {
        "pickle": pickle.dumps({"a": 1}),
        "cut off": good[: len(good) // 2],
        "empty": b"",
        "safetensors": length + b"{}",
        "is": b"<script>alert(1)</script>",
    }
    files = {}
    for number, (word, data) in enumerate(contents.items()):
        files[word] = folder / f"{number}.safetensors"
        files[word].write_bytes(data)
    files["a pickle"] = folder / "model.ckpt"
    files["a pickle"].write_bytes(pickle.dumps({"a": 1}))
    return files


def test_only_concepts_come_into_the_library(server: Server, user: Client, tmp_path: Path) -> None:
    before = [info.name for info in library(server).list()]
    for word, file in bad_files(tmp_path).items():
        with pytest.raises(AppError) as caught:
            user.predict(handle_file(file), "", "", False, api_name="/import_concept")
        assert word in str(caught.value)
        assert str(server.place) not in str(caught.value), "where uploads lie is nobody's business"
    good = tmp_path / "sue.safetensors"
    for name in ("../evil", "/etc/evil", EVIL, "a b"):
        with pytest.raises(AppError, match="cannot name a concept"):
            user.predict(handle_file(good), name, "", False, api_name="/import_concept")
    with pytest.raises(AppError, match="trigger"):
        user.predict(handle_file(good), "", "<rex>", False, api_name="/import_concept")
    assert [info.name for info in library(server).list()] == before


def test_a_concept_goes_in_and_out_is_renamed_deleted_and_restored(
    server: Server, user: Client, tmp_path: Path
) -> None:
    file = make_concept(tiny_base(), "pip", band=3).save(tmp_path / "pip.safetensors")
    assert user.predict(handle_file(file), "", "", False, api_name="/import_concept")["trigger"] == "<pip>"
    with pytest.raises(AppError, match="already"):
        user.predict(handle_file(file), "", "", False, api_name="/import_concept")
    assert user.predict("pip", "<pop>", api_name="/rename_concept")["trigger"] == "<pop>"
    assert user.predict("pip", new_name="pap", api_name="/rename_concept") == {"name": "pap", "trigger": "<pop>"}
    assert user.predict("pap", "<pop>", "pip", api_name="/rename_concept") == {"name": "pip", "trigger": "<pop>"}
    (out,) = user.predict("pip", "concept", api_name="/export_concept")
    assert read_info(out).trigger == "<pop>"
    lora, embedding = user.predict("pip", "kohya", api_name="/export_concept")
    assert any(key.startswith("lora_unet_") for key in load_file(lora))
    assert list(load_file(embedding)) == ["<pop>"]
    user.predict("pip", api_name="/delete_concept")
    assert not library(server).path("pip").exists()
    user.predict("pip", api_name="/restore_concept")
    assert library(server).info("pip").trigger == "<pop>"
    user.predict("pip", api_name="/delete_concept")


@pytest.mark.parametrize("name", ["../base", "/etc/passwd", "..", "", "nobody", EVIL, ".trash"])
def test_names_that_are_paths_reach_nothing(server: Server, user: Client, name: str) -> None:
    calls = [
        (("/delete_concept"), (name,)),
        (("/restore_concept"), (name,)),
        (("/rename_concept"), (name, "<new>")),
        (("/export_concept"), (name, "concept")),
        (("/overlaps"), ([name],)),
        (("/fuse_lora"), ({name: 1}, "kohya", False)),
        (("/fuse_folder"), ({name: 1}, "fused")),
        (("/evaluate"), ([name, "rex"],)),
        (("/cancel_training"), (name,)),
        (("/cancel_evaluation"), (name,)),
    ]
    for endpoint, arguments in calls:
        with pytest.raises(AppError) as caught:
            user.predict(*arguments, api_name=endpoint)
        assert "Traceback" not in str(caught.value)
        assert "failed (" not in str(caught.value), "an error that nobody foresaw"
    assert (server.place / "base" / "model_index.json").is_file()
    assert {"rex", "tom"} <= {info.name for info in library(server).list()}


def test_concepts_fuse_into_a_lora_and_into_a_pipeline_that_loads(server: Server, user: Client) -> None:
    told = user.predict(["rex", "tom"], api_name="/overlaps")
    assert (told["disjoint"], told["names"]) == (True, ["rex", "tom"])
    assert told["overlaps"][0][1] < 0.01
    lora, *embeddings = user.predict({"rex": 1.0, "tom": 0.5}, "diffusers", False, api_name="/fuse_lora")
    assert any("lora_A" in key for key in load_file(lora))
    assert len(embeddings) == 2
    path = Path(user.predict({"rex": 1.0, "tom": 0.5}, "both", api_name="/fuse_folder"))
    assert path == server.place / "out" / "fused" / "both"
    base = StableDiffusionPipeline.from_pretrained(path, safety_checker=None, local_files_only=True)
    assert "<tom>" in base.tokenizer.get_vocab()
    record = json.loads((path / "spectral_fusion.json").read_text(encoding="utf-8"))
    assert record["spectral_fusion.merged_from"] == "rex 1, tom 0.5"
    with pytest.raises(AppError, match="exists already"):
        user.predict({"rex": 1.0}, "both", api_name="/fuse_folder")
    assert len(user.predict(prompt="a <rex> dog", steps=1, api_name="/generate")) == 1, "the base is as before"


@pytest.mark.parametrize("folder", ["../evil", "/tmp/evil", "..", "", "a/b"])
def test_fused_pipelines_stay_in_their_folder(server: Server, user: Client, folder: str) -> None:
    with pytest.raises(AppError, match="cannot name"):
        user.predict({"rex": 1.0}, folder, api_name="/fuse_folder")


def test_weights_that_are_no_numbers_are_refused(user: Client) -> None:
    for weight in ("heavy", None, [1], "nan"):
        with pytest.raises(AppError, match="number"):
            user.predict({"rex": weight}, "odd", api_name="/fuse_folder")


def test_folders_of_trainings_and_of_the_library_are_not_served(server: Server) -> None:
    for path in ("concepts/rex/concept.safetensors", "out/trainings", "out/fused", "secret.txt"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.url}gradio_api/file={server.place / path}")
        assert caught.value.code in (403, 404)


def test_the_log_has_no_bug_of_ours(server: Server) -> None:
    assert "a listener of the page failed" not in server.log
