"""The bundled weights: a stock pipeline that obeys, survives saving, and says how to repair itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

from spectral_fusion.errors import InputError
from spectral_fusion.pipeline.load import load_base
from spectral_fusion.toybox import scorers
from spectral_fusion.toybox.evaluate import paint_prompts
from spectral_fusion.toybox.paint import draw_scene
from spectral_fusion.toybox.world import arrange, identity


@pytest.fixture(scope="module")
def toybox() -> StableDiffusionPipeline:
    return load_base("toybox")


def test_it_is_a_stock_pipeline_of_at_most_forty_megabytes(toybox):
    assert type(toybox) is StableDiffusionPipeline
    files = list(scorers.weights_folder().rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) <= 40 * 2**20


def test_it_survives_saving(toybox, tmp_path):
    toybox.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None, local_files_only=True)
    first, second = (paint_prompts(p, ["a red cat"], guidance=3.0, steps=3)[0] for p in (toybox, again))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_missing_weights_are_reported_with_the_repair(tmp_path, monkeypatch):
    monkeypatch.setattr(scorers, "weights_folder", lambda: tmp_path)
    scorers._load.cache_clear()
    with pytest.raises(InputError, match="pip install"):
        scorers.embed_identity([draw_scene(arrange([identity(1)], random.Random(0)))])
