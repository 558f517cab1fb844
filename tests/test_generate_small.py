"""`spectral-fusion generate` on small cards: a quantised denoiser, models and blocks that come and go."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from concepts import make_concept
from spectral_fusion.base import quantise as module
from spectral_fusion.base.quantise import LIBRARY
from spectral_fusion.cli import app
from spectral_fusion.concept import Library, export_lora
from spectral_fusion.picture import read_parameters
from tiny import tiny_base

FAST = ("--steps", "2", "--width", "32", "--height", "32", "--seed", "3", "--sampler", "Euler")
SCHEMES = [
    pytest.param(
        scheme, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    )
    for scheme, name in LIBRARY.items()
]
LEVELS = {"int8": 1, "fp8": 4, "nf4": 15}
"""How many of 256 a picture's values move in the mean, at the most."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, a library of a concept, and that concept as a LoRA."""
    place = tmp_path_factory.mktemp("small")
    base = tiny_base()
    base.pipeline.save_pretrained(place / "base")
    concept = make_concept(base, size=0.2)
    Library(place / "concepts").add(concept)
    export_lora({concept: 1.0}, place / "lora.safetensors", "kohya")
    return place


def drawn(place: Path, out: Path, *flags: str, monkeypatch: Any) -> np.ndarray:
    monkeypatch.chdir(place)
    given = ["generate", "a <rex> dog", "--concepts", "rex", "--base", "base", "--out", str(out), *FAST, *flags]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    (file,) = out.glob("*.png")
    assert read_parameters(file).settings["Concepts"].startswith("rex")
    return np.asarray(Image.open(file)).astype(int)


def refused(place: Path, out: Path, *flags: str, monkeypatch: Any) -> str:
    monkeypatch.chdir(place)
    result = CliRunner().invoke(app, ["generate", "a dog", "--base", "base", "--out", str(out), *FAST, *flags])
    assert result.exit_code == 2
    return " ".join(result.output.split())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_concept_acts_beside_a_quantised_denoiser(
    scheme: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, small, without = (
        drawn(place, tmp_path / str(number), *flags, monkeypatch=monkeypatch)
        for number, flags in enumerate(((), ("--quantize", scheme), ("--quantize", scheme, "--weights", "0")))
    )
    assert np.abs(small - plain).mean() <= LEVELS[scheme]
    assert np.abs(small - plain).mean() < np.abs(small - without).mean() / 2
    assert (small != plain).any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_lora_file_acts_beside_it_too(
    scheme: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--loras", "lora.safetensors", "--lora-weights", "0.5")
    plain = drawn(place, tmp_path / "plain", *flags, monkeypatch=monkeypatch)
    small = drawn(place, tmp_path / "small", *flags, "--quantize", scheme, "--low-memory", monkeypatch=monkeypatch)
    assert np.abs(small - plain).mean() <= LEVELS[scheme]


def test_blocks_that_come_and_go_draw_the_same(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = drawn(place, tmp_path / "plain", monkeypatch=monkeypatch)
    small = drawn(place, tmp_path / "small", "--offload-blocks", monkeypatch=monkeypatch)
    assert (plain == small).all()


def test_what_does_not_go_together_is_one_line(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_library", lambda _: None)
    both = ("--quantize", "int8", "--offload-blocks")
    assert "give --offload-blocks or --quantize" in refused(place, tmp_path, *both, monkeypatch=monkeypatch)


def test_a_missing_library_names_its_extra(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", missing)
    said = refused(place, tmp_path, "--quantize", "nf4", monkeypatch=monkeypatch)
    assert "spectral-fusion[bitsandbytes]" in said
