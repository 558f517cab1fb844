"""The tuner in PEFT's shape computes what ours does: files go both ways, and its own tests pass."""

import ast
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

from spectral_fusion.adapter import SpectralConfig
from upstream_peft import COMMON, ROOT, SETTINGS, UPSTREAM, inputs, model

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
FILES = sorted((ROOT / "upstream").rglob("*.py"))


def test_adapters_of_one_are_those_of_the_other(tmp_path: Path) -> None:
    wanted = {}
    for name, settings in SETTINGS.items():
        ours = get_peft_model(model(), SpectralConfig(**COMMON | settings)).eval()
        ours.save_pretrained(tmp_path / "ours" / name)
        wanted[name] = ours(inputs())
    script = ROOT / "tests" / "upstream_peft.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, env=ENVIRONMENT, capture_output=True)
    found = load_file(tmp_path / "outputs.safetensors")
    for name in SETTINGS:
        assert torch.allclose(found[f"{name}.loaded"], wanted[name], atol=1e-5)
        theirs = PeftModel.from_pretrained(model(), tmp_path / "theirs" / name).eval()
        assert torch.allclose(theirs(inputs()), found[f"{name}.made"], atol=1e-5)
        kept = [load_file(tmp_path / who / name / "adapter_model.safetensors") for who in ("ours", "theirs")]
        assert kept[0].keys() == kept[1].keys()
        for key in (key for key in kept[0] if ".spectral_U" in key or ".spectral_V" in key or ".spectral_S" in key):
            assert torch.allclose(kept[0][key], kept[1][key], atol=1e-4), key  # the same band, signs included


def test_its_own_tests_pass() -> None:
    arguments = ["-m", "pytest", "-q", "-p", "upstream_peft", "-p", "no:cacheprovider", ROOT / "upstream" / "tests"]
    done = subprocess.run(
        [sys.executable, *arguments, "-c", os.devnull], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_settings_are_the_same() -> None:
    tree = ast.parse((UPSTREAM / "spectral" / "config.py").read_text(encoding="utf-8"))
    (config,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    theirs = {node.target.id for node in config.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    own = {field.name for field in dataclasses.fields(SpectralConfig)}
    inherited = {field.name for field in dataclasses.fields(SpectralConfig.__mro__[1])}
    assert theirs == own - inherited


def test_configurations_of_the_benchmark_are_settings() -> None:
    folder = ROOT / "upstream" / "method_comparison" / "MetaMathQA" / "experiments" / "spectral"
    found = sorted(folder.glob("*/adapter_config.json"))
    assert len(found) == 2
    for path in found:
        values = json.loads(path.read_text(encoding="utf-8"))
        assert values.pop("peft_type") == "SPECTRAL"
        assert values.keys() <= {field.name for field in dataclasses.fields(SpectralConfig)}
        SpectralConfig(**values)
        assert json.loads(path.with_name("training_params.json").read_text(encoding="utf-8"))["optimizer_kwargs"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_of_this_package_is_imported(path: Path) -> None:
    assert "spectral_fusion" not in path.read_text(encoding="utf-8")
