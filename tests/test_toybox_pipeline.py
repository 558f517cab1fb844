"""The bundled weights: a stock base that obeys, survives saving, and says how to repair itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from spectral_fusion.base.load import open_base
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from spectral_fusion.toybox import FINGERPRINT, scorers
from spectral_fusion.toybox.data import crop
from spectral_fusion.toybox.evaluate import obeyed, paint_prompts
from spectral_fusion.toybox.paint import draw_scene
from spectral_fusion.toybox.world import arrange, caption, identity, plain_thing


@pytest.fixture(scope="module")
def toybox() -> StableDiffusion:
    return open_base("toybox")


def test_it_is_a_stock_pipeline_of_at_most_forty_megabytes(toybox):
    assert type(toybox.pipeline) is StableDiffusionPipeline
    assert toybox.fingerprint == FINGERPRINT
    assert toybox.scorers() is scorers
    files = list(scorers.weights_folder().rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) <= 40 * 2**20


def test_it_paints_what_the_prompt_says(toybox):
    rng = random.Random("smoke")
    things = [("cat", "red", "grass"), ("car", "blue", "snow"), ("house", "yellow", "night"), ("ball", "green", "sand")]
    scenes = [arrange([plain_thing(rng, name, color)], rng, background) for name, color, background in things]
    images = paint_prompts(toybox.pipeline, [caption(scene) for scene in scenes], guidance=5.0, seed=1)
    assert obeyed(images, scenes).all(dim=1).sum() >= 3


def test_it_survives_saving(toybox, tmp_path):
    toybox.pipeline.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None, local_files_only=True)
    first, second = (paint_prompts(p, ["a red cat"], guidance=3.0, steps=3)[0] for p in (toybox.pipeline, again))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_scorers_recognise_identities_and_captions():
    rng = random.Random("scorers")
    photos = {n: [draw_scene(arrange([identity(n)], rng)) for _ in range(2)] for n in range(6)}
    embedded = {n: scorers.embed_identity(pair) for n, pair in photos.items()}
    for n, (query, _) in embedded.items():
        assert max(embedded, key=lambda m: float(query @ embedded[m][1])) == n
    crowd = arrange([identity(3), identity(4)], rng)
    seen = scorers.embed_identity([crop(draw_scene(crowd), placed) for placed in crowd.things])
    assert all(float(seen[i] @ embedded[n][0]) > float(seen[i] @ embedded[7 - n][0]) for i, n in ((0, 3), (1, 4)))

    scenes = [arrange([plain_thing(rng, name, "red")], rng, "snow") for name in ("cat", "car", "boat")]
    cosines = scorers.text_alignment([draw_scene(scene) for scene in scenes], [caption(scene) for scene in scenes])
    assert torch.equal(cosines.argmax(1), torch.arange(3))


def test_missing_weights_are_reported_with_the_repair(tmp_path, monkeypatch):
    monkeypatch.setattr(scorers, "weights_folder", lambda: tmp_path)
    scorers._load.cache_clear()
    with pytest.raises(InputError, match="pip install"):
        scorers.embed_identity([draw_scene(arrange([identity(1)], random.Random(0)))])
