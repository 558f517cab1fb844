"""The second bundled base: a stock pipeline in the package, with a judge of its own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

from spectral_fusion.base.bundled import BUNDLED
from spectral_fusion.base.load import open_base
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.evaluate import load_detector, load_scorers
from spectral_fusion.toybox.evaluate import paint_prompts
from spectral_fusion.toybox128 import FINGERPRINT, WEIGHTS, scorers


@pytest.fixture(scope="module")
def toybox128() -> StableDiffusion:
    return open_base("toybox128")


@pytest.fixture(scope="module")
def pictures(toybox128: StableDiffusion) -> list[Image.Image]:
    prompts = ["a photo of a blue car in the snow", "a photo of a red house on grass", "an orange ball at night"]
    return paint_prompts(toybox128.pipeline, prompts, guidance=4.0, steps=16)


def test_it_is_a_stock_pipeline_of_at_most_seventy_megabytes(toybox128: StableDiffusion) -> None:
    assert type(toybox128.pipeline) is StableDiffusionPipeline
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")) <= 70 * 2**20
    stock = StableDiffusionPipeline.from_pretrained(WEIGHTS, safety_checker=None, local_files_only=True)
    assert {part.dtype for part in (stock.unet, stock.text_encoder, stock.vae)} == {toybox128.unet.dtype}


def test_it_is_known_by_its_weights_and_has_a_judge(toybox128: StableDiffusion) -> None:
    assert toybox128.fingerprint == FINGERPRINT
    assert toybox128.bundled is BUNDLED["toybox128"]
    assert load_scorers(toybox128) is scorers
    assert load_detector(toybox128) is scorers


def test_subjects_stand_side_by_side_inside_the_picture(toybox128: StableDiffusion) -> None:
    for count in (1, 2, 3, 4):
        places = toybox128.places(count)
        assert len(places) == count
        assert all(0 <= p.left < p.right <= 1 and 0 <= p.top < p.bottom <= 1 for p in places)
        assert all(left.right <= right.left + 1e-9 for left, right in pairwise(places))


def test_it_paints_what_the_prompt_says(pictures: list[Image.Image]) -> None:
    assert [picture.size for picture in pictures] == [(128, 128)] * 3
    seen = scorers.find_things(pictures)
    assert [place for place, _ in seen] == ["snow", "grass", "night"]
    wanted = ("car", "house", "ball")
    assert sum(name in {thing.name for thing in found} for name, (_, found) in zip(wanted, seen, strict=True)) >= 2


def test_captions_fit_their_own_pictures_best(pictures: list[Image.Image]) -> None:
    fit = scorers.text_alignment(pictures, ["a car in the snow", "a house on grass", "a ball at night"]).numpy()
    assert (np.diag(fit) >= fit.max(axis=1) - 1e-6).all()
    assert fit.min() >= 0
    assert fit.max() <= 1
