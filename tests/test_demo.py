"""The demo and the verbs `evaluate` and `demo`, on a tiny base with stand-in scorers."""

import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from concepts import make_concept, same_weights, weights_of
from judging import ColourScorers, colour_folders
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.cli import app
from spectral_fusion.concept import Library
from spectral_fusion.demo import CHOSEN, EXAMPLES, METHODS, DemoFiles, example_images, run_demo
from spectral_fusion.evaluate import EvaluateConfig
from spectral_fusion.toybox.data import HELD_OUT
from tiny import tiny_base

ROOT = Path(__file__).parents[1]
QUICK = EvaluateConfig(prompts=("a {}",), seeds=1, num_inference_steps=1)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without a checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def demo(out: Path, base: StableDiffusion, said: list[str] | None = None) -> DemoFiles:
    return run_demo(
        out,
        base=base,
        scorers=ColourScorers(),
        names=CHOSEN[:2],
        methods=("spectral-sum", "lora-sum"),
        config=QUICK,
        training={"steps": 1, "rank": 4, "batch_size": 1, "distillation_prompts": 0},
        on_progress=(said if said is not None else []).append,
    )


@pytest.mark.slow
def test_it_runs_without_a_checkout_and_keeps_what_it_trained(elsewhere: Path, base: StableDiffusion) -> None:
    before = weights_of(base)
    first = demo(elsewhere / "out", base)
    assert [method.name for method in first.evaluation.methods] == ["spectral sum", "LoRA sum"]
    assert first.report.is_file()
    assert Image.open(first.contact_sheet).width > 500
    assert same_weights(before, weights_of(base))
    files = [*elsewhere.glob("out/concepts/*/concept.safetensors"), *elsewhere.glob("out/lora/*.safetensors")]
    assert len(files) == 4
    written = [file.stat().st_mtime_ns for file in files]
    said: list[str] = []
    again = demo(elsewhere / "out", base, said)
    assert not [line for line in said if line.startswith("training")]
    assert "kept" in again.evaluation.facts[f"training {CHOSEN[0]}"]
    assert [file.stat().st_mtime_ns for file in files] == written
    figures = [{k: v for k, v in found.evaluation.to_json().items() if k != "facts"} for found in (first, again)]
    assert figures[0] == figures[1]


def test_the_demo_compares_three_of_the_examples() -> None:
    assert len(CHOSEN) == 3
    assert set(CHOSEN) < EXAMPLES.keys()
    assert METHODS[0] == "spectral-sum"


@pytest.mark.parametrize("name", EXAMPLES)
def test_shipped_examples_are_what_would_be_drawn(name: str, tmp_path: Path) -> None:
    assert EXAMPLES[name].number < HELD_OUT
    shipped = ROOT / "concepts" / name / "images"
    drawn = example_images(name, tmp_path, shipped=tmp_path / "none")
    assert sorted(file.name for file in shipped.iterdir()) == sorted(file.name for file in drawn.iterdir())
    for file in drawn.glob("*.png"):
        assert Image.open(file).tobytes() == Image.open(shipped / file.name).tobytes()
    for file in drawn.glob("*.txt"):
        assert file.read_bytes() == (shipped / file.name).read_bytes()
    assert example_images(name, tmp_path, shipped=ROOT / "concepts") == shipped


@pytest.fixture
def bench(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of two concepts with photos, and the tiny base for any base."""
    base = tiny_base()
    library = Library(elsewhere / "concepts")
    colour_folders(elsewhere / "photos")
    for band, name in enumerate(("rex", "tom")):
        library.add(make_concept(base, name, band=band))
        os.rename(elsewhere / "photos" / name, library.folder(name) / "images")
    monkeypatch.setattr("spectral_fusion.base.load.open_base", lambda *_, **__: base)
    monkeypatch.setattr("spectral_fusion.evaluate.load_scorers", lambda *_, **__: ColourScorers())
    return elsewhere


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_evaluate_writes_its_files_and_says_where(bench: Path) -> None:
    flags = ("--seeds", "1", "--steps", "1", "--prompts", "a {}", "--out", "found")
    refused = run("evaluate", "rex", "tom", *flags)
    assert refused.exit_code == 2
    assert "was trained on tiny, which is not here" in refused.stderr, "not some other base"
    (bench / "tiny").mkdir()
    result = run("evaluate", "rex", "tom", *flags)
    assert result.exit_code == 0, result.output
    names = ("report.html", "report.json", "contact-sheet.png")
    assert [line for line in result.stdout.splitlines() if line] == [f"found/{name}" for name in names]
    assert all((bench / "found" / name).is_file() for name in names)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rex", "tmo"], "did you mean 'tom'"),
        (["rex"], "two or more"),
        (["rex", "rex"], "named twice"),
        (["rex", "tom", "--seeds", "0"], "seeds is 0"),
        (["rex", "tom", "--prompts", "a dog"], "does not hold {}"),
        (["rex", "tom", "--methods", "sum"], "'sum' is unknown"),
        (["rex", "tom", "--sampler", "Eular"], "did you mean 'Euler'"),
        (["rex", "tom", "--images", "photos"], "2 concepts and 1 folders"),
        (["rex", "tom", "--images", "photos/kit", "nowhere"], "no photos in nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(bench: Path, arguments: list[str], words: str) -> None:
    result = run("evaluate", *arguments, "--out", "found")
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (bench / "found").exists()


def test_a_file_in_the_place_of_the_report_is_said_before_the_work(bench: Path) -> None:
    (bench / "found").write_text("x")
    result = run("evaluate", "rex", "tom", "--base", "tiny", "--out", "found/here")
    assert result.exit_code == 2
    assert "is a file; give a folder for the report" in result.stderr


def test_a_concept_without_photos_is_refused(bench: Path) -> None:
    for file in (bench / "concepts" / "tom" / "images").iterdir():
        file.unlink()
    result = run("evaluate", "rex", "tom")
    assert result.exit_code == 2
    assert "images is empty" in result.stderr
