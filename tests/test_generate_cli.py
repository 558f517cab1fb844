"""`spectral-fusion generate`, from the command line to the pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from concepts import make_concept
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.cli import app
from spectral_fusion.concept import Library
from spectral_fusion.picture import read_parameters
from tiny import tiny_base

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
        (["a dog", "--device", "toaster"], "toaster"),
    ],
)
def test_bad_input_leaves_no_picture(generate, args: list[str], words: str) -> None:
    result, files = generate(*args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("error: ") == 1
    assert files == []
