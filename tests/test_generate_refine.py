"""Image to image, repainting, the second pass and the detail pass."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from concepts import make_concept
from spectral_fusion.base.condition import Start
from spectral_fusion.base.painted import mask_text
from spectral_fusion.base.regions import Region
from spectral_fusion.base.samplers import SAMPLERS
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from spectral_fusion.generation import GenerateConfig, Picture, generate
from spectral_fusion.generation.fitting import fitted
from spectral_fusion.generation.refine import (
    beyond,
    crop_box,
    cut_out,
    detail_prompt,
    ground_prompt,
    soft_edge,
    to_latents,
)
from spectral_fusion.picture import Parameters

CONFIG = GenerateConfig("a photo of a red dog", num_inference_steps=4, height=32, width=32, guidance_scale=3)
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[:, :32], pixels[:, 32:] = (250, 60, 30), (20, 90, 240)
    return Image.fromarray(pixels)


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def drawn(base: StableDiffusion, **changes: object) -> np.ndarray:
    return pixels(generate(base, replace(CONFIG, **changes))[0])


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "DDIM", "UniPC", "Heun", "PLMS"])
def test_strength_goes_from_the_picture_to_pure_noise(
    shared_base: StableDiffusion, photo: Image.Image, sampler: str
) -> None:
    """Strength 1 is the picture without an init image, bit for bit; 0 is the init image."""
    plain = drawn(shared_base, sampler=sampler)
    assert np.array_equal(drawn(shared_base, sampler=sampler, init_image=photo, strength=1.0), plain)
    kept = drawn(shared_base, sampler=sampler, init_image=photo, strength=0.0)
    assert np.array_equal(kept, np.asarray(fitted(photo, (32, 32))).astype(int))
    half = drawn(shared_base, sampler=sampler, init_image=photo, strength=0.5)
    assert np.abs(half - plain).mean() > 1
    assert np.abs(half - kept).mean() > 1


def test_every_sampler_begins_from_a_picture(shared_base: StableDiffusion, photo: Image.Image) -> None:
    mask = mask_text(Image.new("L", (4, 4), 255))
    for sampler in SAMPLERS:
        picture = drawn(shared_base, sampler=sampler, init_image=photo, strength=0.5, repaint=mask)
        assert picture.std() > 0, sampler


def test_fewer_steps_are_done_on_a_picture(shared_base: StableDiffusion, photo: Image.Image) -> None:
    for strength, steps in ((0.0, 0), (0.5, 2), (1.0, 4)):
        told = shared_base.condition([CONFIG.prompt])
        noise = torch.randn(1, *shared_base.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
        start = Start(to_latents(shared_base, fitted(photo, (32, 32))), strength)
        done = list(shared_base.denoise(told, noise, sampler="DDIM", steps=4, start=start))
        assert [step.number for step in done] == list(range(1, steps + 1))
        assert {step.count for step in done} <= {steps}


def test_what_is_not_repainted_stays_pixel_for_pixel(shared_base: StableDiffusion, photo: Image.Image) -> None:
    mask = Image.new("L", (32, 32))
    mask.paste(255, (16, 0, 32, 32))
    found = drawn(shared_base, init_image=photo, strength=1.0, repaint=mask_text(mask))
    before = np.asarray(fitted(photo, (32, 32))).astype(int)
    assert np.array_equal(found[:, :16], before[:, :16])
    assert np.abs(found[:, 16:] - before[:, 16:]).mean() > 5


def test_a_picture_of_another_shape_is_cut_round_its_middle(photo: Image.Image) -> None:
    cut = np.asarray(fitted(photo, (32, 16)))
    assert cut.shape == (32, 16, 3)
    assert tuple(cut[16, 2]) == (250, 60, 30)
    assert tuple(cut[16, 13]) == (20, 90, 240)


def test_the_second_pass_is_larger_and_like_the_first(shared_base: StableDiffusion) -> None:
    small = drawn(shared_base)
    kept = generate(shared_base, replace(CONFIG, upscale=1.5, upscale_strength=0.0))[0]
    assert kept.image.size == (48, 48)
    anew = generate(shared_base, replace(CONFIG, upscale=1.5, upscale_strength=0.5))[0]
    assert not np.array_equal(pixels(anew), pixels(kept))
    again = GenerateConfig.from_parameters(Parameters.parse(str(anew.parameters)))
    assert again == replace(CONFIG, upscale=1.5, upscale_strength=0.5)
    assert small.shape == (32, 32, 3)


def test_the_detail_pass_draws_each_subject_by_itself(base: StableDiffusion) -> None:
    rex = make_concept(base, size=0.2)
    config = replace(
        CONFIG,
        prompt="a <rex> dog and a cat",
        regions=(Region("a <rex> dog and a cat", (0.0, 0.25, 0.25, 0.5), concepts={"rex": 1.0}),),
    )
    steps: list[int] = []
    first = generate(base, config, concepts={rex: 1.0}, on_step=lambda step: steps.append(step.step))[0]
    second = generate(base, replace(config, detail=0.5), concepts={rex: 1.0}, on_step=lambda s: steps.append(s.step))[0]
    assert steps == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    change = np.abs(pixels(first) - pixels(second)).sum(2)
    assert change[8:16, :8].mean() > 0
    change[8:16, :8] = 0
    assert not change.any(), "outside the region, its neighbours, not a pixel is changed"
    assert detail_prompt("a dog", config.regions[0], {rex: 1.0}) == "a photo of a <rex> dog"
    assert second.parameters.settings["Detail strength"] == "0.5"


class Spoken(NamedTuple):
    """A concept as prompts speak of it."""

    name: str
    class_word: str

    @property
    def trigger(self) -> str:
        return f"<{self.name}>"


@pytest.mark.parametrize(
    ("prompt", "first"),
    [
        ("a <rex> dog and a <tom> cat on grass", "a <rex> dog on grass"),
        ("a photo of a <tom> cat, a <rex> and a <tom>", "a photo of a <rex> dog"),
        ("snow, a <tom> cat that sees a <rex> doghouse", "snow, a <rex> dog doghouse"),
        ("a (<rex> dog:1.2) and a <tom> cat", "a photo of a <rex> dog"),
        ("a dog and a <tom> cat on grass", "a photo of a <rex> dog"),
    ],
)
def test_a_crop_is_told_of_its_own_subject_and_of_the_ground(prompt: str, first: str) -> None:
    concepts = {Spoken("rex", "dog"): 1.0, Spoken("tom", "cat"): 1.0}
    assert detail_prompt(prompt, Region("", concepts={"rex": 1.0}), concepts) == first
    assert not detail_prompt(prompt, Region("a tree"), concepts)


@pytest.mark.parametrize(
    ("prompt", "ground"),
    [
        ("a photo of a <rex> dog and a <tom> cat on grass", "a photo on grass"),
        ("a dog on a sledge, the cat behind it, at night", "behind it, at night"),
        ("snow, <rex>", "snow,"),
        ("a photo of a tree", ""),
        ("a (<rex> dog:1.2) on grass", ""),
        ("a doghouse", ""),
    ],
)
def test_a_ground_is_told_without_its_subjects(prompt: str, ground: str) -> None:
    assert ground_prompt(prompt, {Spoken("rex", "dog"): 1.0, Spoken("tom", "cat"): 1.0}) == ground


def test_a_crop_goes_on_beyond_the_edge_of_the_picture() -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.paste((0, 0, 255), (0, 0, 1, 8))
    crop = cut_out(image, (-4, 0, 4, 8))
    assert crop.size == (8, 8)
    assert {crop.getpixel((x, 3)) for x in range(5)} == {(0, 0, 255)}
    assert crop.getpixel((5, 3)) == (255, 0, 0)
    past = np.asarray(beyond((8, 8), (-4, 0, 4, 8)))
    assert (past[:, :4] == 255).all()
    assert not past[:, 4:].any()
    assert cut_out(image, (2, 2, 6, 6)).tobytes() == image.crop((2, 2, 6, 6)).tobytes()


def test_crops_and_their_edges() -> None:
    assert crop_box(Region("x", LEFT), (64, 64)) == (-16, 0, 48, 64)
    assert crop_box(Region("x", (0.4, 0.4, 0.6, 0.6)), (100, 100)) == pytest.approx((38, 38, 62, 62), abs=3)
    edge = np.asarray(soft_edge(Image.new("L", (40, 40), 255)))
    assert edge[20, 20] == 255
    assert edge[0].max() < 40
    assert edge[:, 0].max() < 40
    inside = Image.new("L", (40, 40))
    inside.paste(255, (0, 0, 20, 40))
    edge = np.asarray(soft_edge(inside))
    assert edge[20, 10] == 255
    assert not edge[:, 20:].any()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"strength": 1.5}, "strength is 1.5"),
        ({"detail": -0.1, "regions": (Region("x", LEFT),)}, "detail is -0.1"),
        ({"detail": 0.5}, "no regions"),
        ({"upscale": 0.5}, "upscale is 0.5"),
        ({"upscale_strength": float("nan")}, "upscale_strength is nan"),
        ({"repaint": mask_text(Image.new("L", (2, 2), 255))}, "without an init image"),
    ],
)
def test_what_cannot_be_used(shared_base: StableDiffusion, change: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        generate(shared_base, replace(CONFIG, **change))
