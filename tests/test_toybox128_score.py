"""The second edition's scorers and its packed folder."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from typer.testing import CliRunner

from spectral_fusion.boxes import overlap
from spectral_fusion.errors import InputError
from spectral_fusion.toybox.data import Drawings, to_tensor
from spectral_fusion.toybox.train import pack, save_parts, train_stage
from spectral_fusion.toybox128 import scorers
from spectral_fusion.toybox128.data import view
from spectral_fusion.toybox128.detector import FIELDS, Found, detector_loss, find, read_off
from spectral_fusion.toybox128.evaluate import marked_scenes, matched, obeyed
from spectral_fusion.toybox128.layout import random_scene
from spectral_fusion.toybox128.models import make_vae
from spectral_fusion.toybox128.paint import draw_scene
from spectral_fusion.toybox128.reader import read, reader_loss
from spectral_fusion.toybox128.stages import STAGES, Denoiser
from spectral_fusion.toybox128.train import TOYBOX128
from spectral_fusion.toybox128.world import Placed, Scene, identity, plain_thing


def _found(placed: Placed, **changes) -> Found:
    thing = placed.thing
    found = Found(placed.box, 0.9, thing.name, thing.color_name or "", "", "", "", "", ())
    return replace(found, **changes)


@pytest.fixture
def scene() -> Scene:
    rng = random.Random(0)
    things = [plain_thing(rng, "cat", "red"), plain_thing(rng, "cat", "blue"), plain_thing(rng, "car", "red")]
    return Scene("grass", tuple(Placed(thing, 0.2 + 0.3 * i, 0.9, 0.15) for i, thing in enumerate(things)))


def test_a_scene_drawn_as_asked_is_obeyed(scene) -> None:
    assert obeyed(scene, [_found(placed) for placed in scene.things]) == (True, True, True)


def test_a_missing_thing_a_wrong_color_and_a_wrong_order_are_seen(scene) -> None:
    cat, other, car = (_found(placed) for placed in scene.things)
    assert obeyed(scene, [cat, car]) == (False, False, False)
    assert obeyed(scene, [cat, replace(other, color="green"), car]) == (True, False, True)
    swapped = [replace(cat, box=car.box), other, replace(car, box=cat.box)]
    assert obeyed(scene, sorted(swapped, key=lambda each: each.x)) == (True, True, False)


def test_each_found_thing_is_matched_once(scene) -> None:
    (only,) = (_found(scene.things[0]),)
    assert matched(scene, [only]) == [only, None, None]


def test_what_is_read_off_a_thing_is_what_it_has() -> None:
    for seed in range(40):
        thing = identity(seed)
        fields, bits = read_off(thing)
        named = {key: ("", *values)[value] for value, (key, values) in zip(fields, FIELDS.items(), strict=True)}
        assert named["name"] == thing.name
        assert named["pattern"] == (thing.marks.pattern or "")
        assert sum(bits) == len(thing.marks.accessories) + bool(thing.look and thing.look.beard)


def test_marks_that_are_asked_for_have_words() -> None:
    assert all(scene.things[0].thing.marks for scene in marked_scenes(10))


def test_overlap_is_one_for_the_same_box_and_zero_apart() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.6, 0.6, 1.0, 1.0]])
    assert overlap(boxes[0], boxes).tolist() == pytest.approx([1.0, 1 / 3, 0.0])


def test_the_detector_learns_and_finds_what_it_has_learned() -> None:
    torch.manual_seed(0)
    detector = STAGES["detector"].make_model()
    make = STAGES["detector"].source("detector", 0, None, detector).make
    (batch,) = Drawings(make, 0, "detector").batches(4, 0, 1)
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = detector_loss(detector, batch, None)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]
    assert len(find(detector.eval(), batch["pixels"])) == 4


def test_the_reader_learns_what_a_thing_is_and_wears() -> None:
    torch.manual_seed(0)
    reader = STAGES["reader"].make_model()
    (batch,) = Drawings(STAGES["reader"].source("reader", 0, None, reader).make, 0, "reader").batches(8, 0, 1)
    optimizer = torch.optim.AdamW(reader.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        loss = reader_loss(reader, batch, None)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_the_reader_names_things_and_leaves_their_boxes() -> None:
    source = random.Random(5)
    scenes = [random_scene(source, marked=0.7, counts=(count,)) for count in (1, 2, 3) for _ in range(8)]
    views = torch.stack([to_tensor(view(draw_scene(s), placed.box)) for s in scenes for placed in s.things])
    blank = [Found(placed.box, 0.7, "", "", "", "", "", "", ()) for s in scenes for placed in s.things]
    read_off_them = read(scorers.load_scorer("reader", scorers.weights_folder()), views, blank)
    assert [each.box for each in read_off_them] == [each.box for each in blank]
    names = [placed.thing.name for s in scenes for placed in s.things]
    right = sum(each.name == name for each, name in zip(read_off_them, names, strict=True))
    assert right >= 0.95 * len(names)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed folder of untrained weights."""
    out = tmp_path_factory.mktemp("toybox128")
    torch.manual_seed(0)
    vae = make_vae()
    save_parts(replace(STAGES["vae"], finish=None), vae, out, 0)
    save_parts(STAGES["unet"], Denoiser(vae), out, 0)
    save_parts(STAGES["detector"], STAGES["detector"].make_model(), out, 0)
    return pack(out, TOYBOX128)


def test_the_stock_pipeline_draws_with_the_packed_folder_as_it_is(packed) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(packed, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    parts = (pipeline.vae, pipeline.unet, pipeline.text_encoder)
    assert {part.dtype for part in parts} == {torch.float32}
    (image,) = pipeline("a red cat", num_inference_steps=1).images
    assert image.size == (128, 128)
    assert sum(path.stat().st_size for path in packed.rglob("*.safetensors")) <= 70e6


def test_packed_weights_can_be_begun_with(packed, tmp_path) -> None:
    with pytest.raises(InputError, match="no trained autoencoder"):
        train_stage("unet", tmp_path, edition=TOYBOX128, stop=0)
    train_stage("unet", tmp_path, edition=TOYBOX128, init=packed, stop=0)
    for part in ("unet", "text_encoder", "vae"):
        (first,), (second,) = (list((folder / part).glob("*.safetensors")) for folder in (packed, tmp_path))
        theirs, ours = load_file(first), load_file(second)
        assert all(torch.equal(theirs[name].float(), ours[name]) for name in theirs)


def test_a_folder_with_an_autoencoder_only_is_begun_with(packed, tmp_path) -> None:
    shutil.copytree(packed / "vae", tmp_path / "init" / "vae")
    train_stage("unet", tmp_path / "out", edition=TOYBOX128, init=tmp_path / "init", stop=0)
    assert (tmp_path / "out" / "unet" / "config.json").exists()


def test_a_missing_scorer_names_itself_and_the_way_out(packed) -> None:
    with pytest.raises(InputError, match=r"identity.*pip install"):
        scorers.load_scorer("identity", packed)


def test_the_command_refuses_unknown_stages() -> None:
    import typer

    from spectral_fusion.toybox128.train import main

    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--stage", "nothing"])
    assert result.exit_code == 2
    assert "unet" in result.output


def test_what_a_caption_names_is_looked_for_in_the_picture(monkeypatch) -> None:
    (cat,) = (_found(placed, pattern="bands", pattern_color="blue", marks=("hat",)) for placed in _one("cat", "red"))
    monkeypatch.setattr(scorers, "find_things", lambda images: [("night", [cat]) for _ in images])
    texts = ["a red cat with vertical stripes, a hat at night", "a red cat with stripes on grass", "a <tom> dog"]
    assert scorers.text_alignment([None], texts)[0].tolist() == pytest.approx([1.0, 0.5, 0.0])


def test_things_are_found_whatever_their_class() -> None:
    source = random.Random(3)
    scenes = [random_scene(source, marked=0.7, counts=(count,)) for count in (1, 2, 3, 4) for _ in range(5)]
    found = scorers.find_boxes([draw_scene(scene) for scene in scenes])
    shared = [
        float(overlap(torch.tensor(placed.box), torch.tensor(boxes)).max())
        for scene, boxes in zip(scenes, found, strict=True)
        for placed in scene.things
    ]
    assert sum(value > 0.4 for value in shared) >= 0.95 * len(shared)


def _one(name: str, color: str) -> tuple[Placed, ...]:
    return (Placed(plain_thing(random.Random(0), name, color), 0.5, 0.9, 0.3),)
