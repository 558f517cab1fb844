"""The examples run, with few steps, and leave what they say."""

import runpy
import sys
from pathlib import Path

import pytest

from spectral_fusion import Concept
from spectral_fusion.picture import read_parameters

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs one by its name, as `python examples/NAME.py --quick` in an empty folder."""

    def run(name: str) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, "--quick"])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return tmp_path / "out" / "examples"

    return run


def test_train(example, capsys: pytest.CaptureFixture[str]) -> None:
    concept = Concept.load(example("train") / "rex.safetensors")
    assert (concept.trigger, concept.class_word, concept.training["steps"]) == ("<rex>", "dog", 2)
    assert "step 2 of 2" in capsys.readouterr().out


def test_fuse_and_generate(example) -> None:
    said = read_parameters(example("fuse_and_generate") / "rex-and-tom.png")
    assert said.weights == {"rex": 1.0, "tom": 0.8}
    assert said.settings["Steps"] == "2"
