"""Verbs of the command line on Stable Diffusion XL: train, generate, fuse, export."""

import logging
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from typer.testing import CliRunner

from ldm_xl import miniature_xl, xl_tensors
from spectral_fusion.base.load import open_base
from spectral_fusion.cli import app
from tiny_sdxl import tiny_sdxl
from training import draw_photos

SHORT = ["--rank", "4", "--steps", "2", "--batch-size", "1", "--distillation-prompts", "0"]


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_from_photos_to_a_folder_for_the_stock_pipeline(tmp_path: Path) -> None:
    base, library = tmp_path / "base", tmp_path / "library"
    tiny_sdxl().save_pretrained(base)
    photos = draw_photos(tmp_path / "photos", size=(60, 40))
    run("train", photos, "--name", "rex", "--class", "dog", "--base", base, "--library", library, *SHORT)
    drawing = ["--base", base, "--library", library, "--device", "cpu", "--steps", "2", "--out", tmp_path / "out"]
    run("generate", "a <rex> dog", "--concepts", "rex", "--seed", "1", *drawing)
    assert len(list((tmp_path / "out").glob("*.png"))) == 1
    told = run("fuse", "rex", "--base", base, "--library", library, "--out", tmp_path / "fused")
    assert "StableDiffusionXLPipeline.from_pretrained" in told
    StableDiffusionXLPipeline.from_pretrained(tmp_path / "fused")
    run("export", "rex", "--to", "kohya", "--library", library, "--out", tmp_path / "rex.safetensors")
    assert (tmp_path / "rex.safetensors").exists()


def test_a_prediction_type_for_a_file_that_does_not_say(tmp_path: Path) -> None:
    save_file(xl_tensors(miniature_xl()), tmp_path / "model.safetensors")
    words = ["--base", tmp_path / "model.safetensors", "--device", "cpu", "--steps", "2", "--width", "32"]
    words += ["--height", "32", "--seed", "1", "--sampler", "Euler"]
    run("generate", "a dog", *words, "--out", tmp_path / "noise")
    run("generate", "a dog", *words, "--out", tmp_path / "v", "--prediction-type", "v_prediction")
    first, second = (next((tmp_path / name).glob("*.png")).read_bytes() for name in ("noise", "v"))
    assert first != second


def test_what_the_model_answers_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A random model tells nothing, and its family's usual type stays."""
    save_file(xl_tensors(miniature_xl()), tmp_path / "model.safetensors")
    with caplog.at_level(logging.INFO):
        opened = open_base(tmp_path / "model.safetensors", dtype=torch.float32)
    assert opened.pipeline.scheduler.config.prediction_type == "epsilon"
    assert "does not say what it predicts" in caplog.text
    assert "tells nothing: taken for noise" in caplog.text
