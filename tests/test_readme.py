"""What the README says to type works, in its order, in a fresh folder with the shipped library."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from ldm import ldm_tensors, miniature
from spectral_fusion.base import presets
from spectral_fusion.cli import app
from spectral_fusion.concept import Library
from spectral_fusion.toybox.draw import write_identity
from spectral_fusion.toybox.world import identity
from spectral_fusion.training import TrainConfig, train_concept, watch
from training import draw_photos

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
APART = {"app", "demo", "train-many"}  # verbs that their own tests run
QUICK = {"generate": ["--steps", "2"], "evaluate": ["--steps", "1", "--seeds", "1"]}  # added to what the reader types


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """The arguments of each `spectral-fusion` line, continued lines joined."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("spectral-fusion ")]
    return [rest for _, *rest in words if rest[0] not in APART]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has: the shipped examples, photos of their own, and a checkpoint."""
    for settings in (presets.TINY, presets.MINIATURE, presets.FULL_SIZE):
        monkeypatch.setitem(settings, "steps", 1)
        monkeypatch.setitem(settings, "distillation_prompts", 1)
    monkeypatch.setattr(watch, "SAMPLE_STEPS", 1)
    monkeypatch.delenv("SPECTRAL_FUSION_LIBRARY", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PROJECT / "concepts", "concepts")
    library = Library("concepts")
    for name, word in {"rex": "dog", "tom": "cat"}.items():
        if not library.path(name).exists():
            train_concept(f"concepts/{name}/images", TrainConfig(name=name, class_word=word), library=library)
    write_identity(identity(77, "cat"), tmp_path / "photos" / "mia", count=4, seed=77)
    draw_photos(tmp_path / "photos" / "ann")
    (tmp_path / "models").mkdir()
    save_file(ldm_tensors(miniature(1)), tmp_path / "models" / "chilloutmix.safetensors")
    return tmp_path


@pytest.mark.slow
def test_the_commands_of_the_readme_run(folder: Path) -> None:
    given = commands()
    assert {words[0] for words in given} >= {"train", "generate", "fuse", "evaluate", "concepts"}
    for words in given:
        try:
            app([*words, *QUICK.get(words[0], [])])
        except SystemExit as end:
            assert not end.code, f"spectral-fusion {shlex.join(words)}"  # noqa: PT017  # the exit code is the result


@pytest.mark.slow
def test_the_python_of_the_readme_runs(folder: Path) -> None:
    for block in blocks("python"):
        if "gradio_client" not in block:  # needs a running server: the page's own tests hold it
            subprocess.run([sys.executable, "-c", block], check=True, cwd=folder)
    assert (folder / "both.png").exists()
