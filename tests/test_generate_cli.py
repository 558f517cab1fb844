"""`spectral-fusion generate`, from the command line to the pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from concepts import make_concept
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.cli import app
from spectral_fusion.concept import Library, export_lora
from spectral_fusion.picture import read_parameters
from tiny import tiny_base, tiny_controlnet

PROMPT = "a <rex> dog and a <tom> cat on grass"
FAST = ("--steps", "2", "--width", "32", "--height", "32", "--seed", "3")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and a library of two concepts."""
    place = tmp_path_factory.mktemp("place")
    base: StableDiffusion = tiny_base()
    base.pipeline.save_pretrained(place / "base")
    library = Library(place / "concepts")
    library.add(make_concept(base, "rex"))
    library.add(make_concept(base, "tom", band=1, seed=1))
    return place


@pytest.fixture
def generate(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)

    def run(*args: str) -> tuple[Result, list[Path]]:
        given = ["generate", *args, "--base", "base", "--out", str(tmp_path / "out"), *FAST]
        return CliRunner().invoke(app, given), sorted((tmp_path / "out").glob("*"))

    return run


def test_two_concepts_with_weights(generate) -> None:
    result, files = generate(
        PROMPT, "--concepts", "rex", "tom", "--weights", "1", "0.8", "-n", "2", "--negative", "ugly"
    )
    assert result.exit_code == 0, result.output
    assert [file.name for file in files] == ["00000-3.png", "00001-4.png"]
    assert result.stdout.split() == [str(file) for file in files]
    parameters = read_parameters(files[1])
    assert parameters.prompt == PROMPT
    assert parameters.negative_prompt == "ugly"
    assert parameters.settings["Concepts"] == "rex: 1, tom: 0.8"
    assert parameters.settings["Seed"] == "4"
    assert parameters.settings["Size"] == "32x32"


def test_nothing_is_overwritten(generate) -> None:
    generate("a dog")
    _, files = generate("a dog")
    assert [file.name for file in files] == ["00000-3.png", "00001-3.png"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_tag_in_the_prompt_is_a_concept_with_a_weight(generate, place: Path) -> None:
    generate("a <rex> dog <lora:rex:0.5>")
    generate("a <rex> dog", "--concepts", str(place / "concepts/rex/concept.safetensors"), "--weights", "0.5")
    _, files = generate("a <rex> dog", "--concepts", "rex")
    tagged, flagged, full = (np.asarray(Image.open(file)) for file in files)
    assert np.array_equal(tagged, flagged)
    assert not np.array_equal(tagged, full)


def test_regions(generate) -> None:
    boxes = ("--region", "a <rex> dog", "0,0,0.5,1", "--region", "a <tom> cat", "0.5,0,1,1")
    result, files = generate("grass", "--concepts", "rex", "tom", *boxes)
    assert result.exit_code == 0, result.output
    assert read_parameters(files[0]).settings["Regions"].count("<") == 2


def test_grid_is_a_sheet_of_weights_and_seeds(generate) -> None:
    result, files = generate("a <rex> dog", "--concepts", "rex", "--grid", "0", "1", "-n", "2")
    assert result.exit_code == 0, result.output
    assert len(files) == 5
    with Image.open(files[-1]) as sheet:
        assert sheet.width > 2 * 32
        assert sheet.height > 2 * 32


def test_settings_from_a_file(generate, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('concepts = ["rex"]\nnegative = "ugly"\nnum-images = 2\n')
    _, files = generate("a <rex> dog", "--config", str(tmp_path / "settings.toml"), "--num-images", "1")
    assert len(files) == 1
    assert read_parameters(files[0]).negative_prompt == "ugly"


def test_a_tag_in_the_prompt_has_the_last_word_on_a_weight(generate) -> None:
    result, files = generate("a <rex> dog <lora:rex:0.5>", "--concepts", "rex", "--weights", "0.9")
    assert result.exit_code == 0, result.stderr
    assert read_parameters(files[0]).weights == {"rex": 0.5}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["a <rxe> dog", "--concepts", "rex"], "did you mean <rex>"),
        (["a dog", "--concepts", "rxe"], "rxe"),
        (["a dog", "--concepts", "rex", "rex"], "twice"),
        (["a dog", "--concepts", "rex", "--weights", "1", "2"], "1 concepts and 2 weights"),
        (["a dog", "--weights", "1"], "0 concepts and 1 weights"),
        (["a dog", "--region", "a cat", "0,0,2,1"], "outside the picture"),
        (["a dog", "--region", "a cat"], "--region PROMPT"),
        (["a dog", "--region", "a cat <lora:rex:1>", "0,0,1,1"], "<lora:rex:1>"),
        (["a dog", "--grid", "0.5", "1"], "--concepts"),
        (["a dog", "--sampler", "Oiler"], "Euler"),
        (["a dog", "--num-images", "0"], "num_images"),
        (["a dog", "-n", "20000"], "num_images is 20000; give a whole number from 1 to 10000"),
        (["a dog", "--device", "toaster"], "toaster"),
    ],
)
def test_bad_input_leaves_no_picture(generate, args: list[str], words: str) -> None:
    result, files = generate(*args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("error: ") == 1
    assert files == []


LEFT, RIGHT = "0,0,0.5,1", "0.5,0,1,1"


def test_concepts_are_bound_to_the_regions_that_name_them(generate, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    regions = ("--region", "a <rex> dog", LEFT, "--region", "a cat", str(tmp_path / "mask.png"))
    result, files = generate(PROMPT, "--concepts", "rex", "tom", "--weights", "0.8", "0.5", *regions)
    assert result.exit_code == 0, result.output
    assert "note: regions 1 and 2 overlap in 50 %" in result.stderr
    settings = read_parameters(files[0]).settings
    first, second = json.loads(settings["Regions"])
    assert first == {"prompt": "a <rex> dog", "box": [0, 0, 0.5, 1], "concepts": {"rex": 0.8}}
    assert second["concepts"] == {}
    assert "mask" in second
    assert settings["Concepts"] == "rex: 0.8, tom: 0.5"


def test_region_concepts_and_steps_by_name(generate) -> None:
    regions = ("--region", "a dog", LEFT, "--region", "", RIGHT, "--region-concepts", "none", "tom:0.3,rex")
    result, files = generate(PROMPT, "--concepts", "rex", "tom", *regions, "--concept-steps", "tom:0.2-1", "rex:0-0.5")
    assert result.exit_code == 0, result.output
    settings = read_parameters(files[0]).settings
    assert [dict(r["concepts"]) if isinstance(r, dict) else {} for r in json.loads(settings["Regions"])] == [
        {},
        {"tom": 0.3, "rex": 1.0},
    ]
    assert json.loads(settings["Concept steps"]) == {"tom": [0.2, 1.0], "rex": [0.0, 0.5]}


def test_without_binding_concepts_are_fused(generate) -> None:
    arguments = (PROMPT, "--concepts", "rex", "tom", "--region", "a <rex> dog", LEFT)
    _, files = generate(*arguments, "--no-bind")
    assert json.loads(read_parameters(files[0]).settings["Regions"]) == [["a <rex> dog", [0, 0, 0.5, 1]]]
    _, files = generate(*arguments)
    fused, bound = (np.asarray(Image.open(file)) for file in files)
    assert not np.array_equal(fused, bound)


def test_places_that_are_not_found_are_told(generate) -> None:
    result, files = generate("a dog", "--concepts", "rex", "--region", "a <rex> dog", "auto")
    assert result.exit_code == 0, result.output
    assert "note: no places were found" in result.stderr
    assert read_parameters(files[0]).settings["Places"] == "not found"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--region", "a dog", LEFT, "--region-concepts", "rex", "tom"), "1 regions and 2 lists"),
        (("--region", "a dog", LEFT, "--region-concepts", "rex:much"), "rex:much"),
        (("--region", "a dog", LEFT, "--region-concepts", "rax"), "did you mean 'rex'"),
        (("--region", "a dog", "none.png"), "not a readable picture"),
        (("--region", "", LEFT, "--region-concepts", "none"), "neither a prompt nor a concept"),
        (("--concept-steps", "rex"), "rex:0.2-1"),
        (("--concept-steps", "rex:0.5-0.1"), "acts from 0.5-0.1"),
        (("--concept-steps", "rex:nan-1"), "--concept-steps has 'rex:nan-1'"),
    ],
)
def test_places_that_cannot_be_used(generate, arguments: tuple[str, ...], message: str) -> None:
    result, files = generate(PROMPT, "--concepts", "rex", "tom", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not files


def test_a_picture_to_begin_from(generate, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "photo.png")
    paint = Image.new("L", (32, 32))
    paint.paste(255, (16, 0, 32, 32))
    paint.save(tmp_path / "mask.png")
    arguments = ("--init-image", str(tmp_path / "photo.png"), "--strength", "1", "--mask", str(tmp_path / "mask.png"))
    result, files = generate("a dog", *arguments, "--upscale", "1.5", "--upscale-strength", "0")
    assert result.exit_code == 0, result.output
    assert Image.open(files[0]).size == (48, 48)
    settings = read_parameters(files[0]).settings
    assert {"Denoising strength", "Init image", "Mask", "Hires upscale"} <= settings.keys()
    (tmp_path / "text.png").write_text("no picture")
    for wrong, message in (
        (("--init-image", str(tmp_path / "text.png")), "text.png"),
        (("--strength", "2"), "strength is 2"),
    ):
        result, _ = generate("a dog", *wrong)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_control_picture(generate, place: Path, tmp_path: Path) -> None:
    tiny_controlnet(tiny_base().unet).save_pretrained(place / "edges")
    Image.new("RGB", (40, 20), (200, 30, 30)).save(tmp_path / "edges.png")
    given = ("--controlnet", "edges", "--control-image", str(tmp_path / "edges.png"))
    numbers = ("--controlnet-conditioning-scale", "0.5", "--control-guidance-end", "0.8")
    result, files = generate("a <rex> dog", "--concepts", "rex", *given, *numbers)
    assert result.exit_code == 0, result.output
    assert "40x20 is resized to 32x32, cut round its middle" in result.stderr
    settings = read_parameters(files[0]).settings
    assert (settings["ControlNet"], settings["Control scale"], settings["Control steps"]) == ("edges", "0.5", "0-0.8")
    for wrong, message in (
        (given[:2], "--control-image"),
        (given[2:], "--controlnet"),
        ((*given, "--control-guidance-start", "1"), "from 1 to 1"),
        (("--controlnet", "nowhere", *given[2:]), "ControlNet nowhere does not exist"),
    ):
        result, found = generate("a dog", *wrong)
        assert result.exit_code == 2, wrong
        assert message in result.stderr
        assert found == files


def test_a_lora_file_beside_concepts(generate, place: Path, tmp_path: Path) -> None:
    lora = export_lora({make_concept(tiny_base(), "bot", band=2, seed=2): 1.0}, tmp_path / "style.safetensors", "kohya")
    regions = ("--region", "a <rex> dog", LEFT, "--region", "a cat", RIGHT, "--region-concepts", "rex", "style:0.5")
    result, files = generate("a <rex> dog", "--concepts", "rex", "--loras", str(lora), *regions)
    assert result.exit_code == 0, result.output
    assert read_parameters(files[0]).settings["Concepts"] == "rex: 1, style: 1"
    result, _ = generate("a dog", "--loras", str(lora), "--lora-weights", "1", "2")
    assert "1 LoRAs and 2 LoRA weights" in result.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--strength", "0.3"), "--strength has no effect"),
        (("--upscale-strength", "0.3"), "--upscale-strength has no effect"),
        (("--control-guidance-end", "0.5"), "no effect without --controlnet"),
        (("--reduce", "mean"), "--reduce mean has no effect: no concepts"),
        (("--concepts", "rex", "--concept-steps", "rex:0-0.5", "--reduce", "mean"), "--reduce mean has no effect"),
        (("--negative", "ugly", "--cfg-scale", "1"), "the negative prompt has no effect"),
        (("--concepts", "rex", "--reduce", "mean"), ""),
    ],
)
def test_flags_without_an_effect_are_named(generate, flags: tuple[str, ...], words: str) -> None:
    result, files = generate("a dog", *flags, "-n", "2")
    assert result.exit_code == 0, result.output
    assert len(files) == 2
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == bool(words)
    assert all(words in note for note in notes)


def test_a_lora_that_is_a_link_to_itself_is_one_line(generate, tmp_path: Path) -> None:
    path = tmp_path / "loop.safetensors"
    path.symlink_to(path)
    result, files = generate("a dog", "--loras", str(path))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert not files
