"""Generating: seeds, previews, stopping, regions, what a picture says about itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spectral_fusion.base.regions import Region
from spectral_fusion.base.samplers import SAMPLERS
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from spectral_fusion.generation import GenerateConfig, Picture, Step, generate
from spectral_fusion.picture import Parameters
from tiny import TEXT_WIDTH
from words import add_tokens

CONFIG = GenerateConfig("a photo of a red dog", num_inference_steps=3, height=32, width=32)


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image)


def same(first: Picture, second: Picture) -> bool:
    return np.array_equal(pixels(first), pixels(second))


def test_it_is_what_the_stock_pipeline_gives(shared_base: StableDiffusion) -> None:
    config = replace(CONFIG, sampler="PLMS", negative_prompt="ugly", guidance_scale=7, seed=5)
    expected = shared_base.pipeline(
        config.prompt,
        negative_prompt="ugly",
        guidance_scale=7,
        num_inference_steps=3,
        height=32,
        width=32,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert np.array_equal(pixels(generate(shared_base, config)[0]), np.asarray(expected))


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a"])
def test_a_seed_gives_the_same_picture_in_any_company(shared_base: StableDiffusion, sampler: str) -> None:
    several = generate(shared_base, replace(CONFIG, seed=7, num_images=3, sampler=sampler))
    assert [picture.seed for picture in several] == [7, 8, 9]
    alone = generate(shared_base, replace(CONFIG, seed=9, sampler=sampler))[0]
    assert same(several[2], alone)
    assert not same(several[0], several[1])


def test_the_pipeline_is_unchanged(shared_base: StableDiffusion) -> None:
    scheduler, processors = shared_base.pipeline.scheduler, shared_base.unet.attn_processors
    generate(shared_base, replace(CONFIG, regions=(Region("a cat", (0, 0, 0.5, 1)),)))
    assert shared_base.pipeline.scheduler is scheduler
    assert all(shared_base.unet.attn_processors[name] is value for name, value in processors.items())


def test_settings_matter(shared_base: StableDiffusion) -> None:
    plain = generate(shared_base, CONFIG)[0]
    changes: list[dict] = [
        {"prompt": "a green cat"},
        {"negative_prompt": "grass"},
        {"guidance_scale": 9.0},
        {"guidance_scale": 1.0},
        {"sampler": "Euler"},
        {"num_inference_steps": 4},
        {"regions": (Region("a green cat", (0, 0, 0.5, 1)),)},
    ]
    pictures = [plain, *(generate(shared_base, replace(CONFIG, **change))[0] for change in changes)]
    assert len({pixels(picture).tobytes() for picture in pictures}) == len(pictures)


def test_sizes(shared_base: StableDiffusion) -> None:
    assert generate(shared_base, replace(CONFIG, height=40, width=24))[0].image.size == (24, 40)
    own = generate(shared_base, replace(CONFIG, height=None, width=None, num_inference_steps=1))[0]
    assert own.image.size == (32, 32)


def test_steps_are_told_with_previews(shared_base: StableDiffusion) -> None:
    seen: list[tuple[int, int, int, int]] = []
    previews = []

    def watch(step: Step) -> None:
        seen.append((step.step, step.steps, step.picture, step.pictures))
        previews.append(step.preview())

    final = generate(shared_base, replace(CONFIG, num_images=2), on_step=watch)
    assert seen == [(step, 3, picture, 2) for picture in (1, 2) for step in (1, 2, 3)]
    assert np.array_equal(np.asarray(previews[-1]), pixels(final[-1]))


def test_returning_false_stops_and_keeps_what_is_finished(shared_base: StableDiffusion) -> None:
    pictures = generate(
        shared_base, replace(CONFIG, num_images=3), on_step=lambda step: (step.picture, step.step) != (2, 2)
    )
    assert [picture.seed for picture in pictures] == [0]
    assert same(pictures[0], generate(shared_base, CONFIG)[0])


def test_an_exception_of_the_callback_comes_through(shared_base: StableDiffusion) -> None:
    def fail(step: Step) -> None:
        raise ZeroDivisionError

    scheduler = shared_base.pipeline.scheduler
    with pytest.raises(ZeroDivisionError):
        generate(shared_base, CONFIG, on_step=fail)
    assert shared_base.pipeline.scheduler is scheduler


def test_a_picture_says_how_to_make_it_again(shared_base: StableDiffusion) -> None:
    config = GenerateConfig(
        'a (red:1.2) dog, "x": y',
        "ugly,\nblurry",
        num_inference_steps=2,
        guidance_scale=3.5,
        sampler="Euler",
        seed=2**40,
        height=32,
        width=24,
        num_images=2,
        regions=(Region("a green, cat", (0, 0, 0.5, 1)), Region("a ball", (0.5, 0.25, 1, 1))),
        notes={"Concepts": "rex: 1, tom: 0.8"},
    )
    second = generate(shared_base, config)[1]
    text = str(second.parameters)
    assert f"Steps: 2, Sampler: Euler, CFG scale: 3.5, Seed: {2**40 + 1}, Size: 24x32, Model hash: " in text
    assert 'Concepts: "rex: 1, tom: 0.8"' in text
    again = GenerateConfig.from_parameters(Parameters.parse(text))
    assert again == replace(config, seed=2**40 + 1, num_images=1, notes={})
    assert same(generate(shared_base, again)[0], second)


def test_settings_of_other_tools_are_taken_as_far_as_they_are_known() -> None:
    foreign = Parameters.parse(
        "a dog\nSteps: 30, Sampler: DPM fast, CFG scale: 7, Seed: 1, Size: 512x768, Clip skip: 2"
    )
    assert GenerateConfig.from_parameters(foreign) == GenerateConfig(
        "a dog", num_inference_steps=30, guidance_scale=7, seed=1, width=512, height=768
    )
    with pytest.raises(InputError, match="by hand"):
        GenerateConfig.from_parameters(Parameters.parse("a dog\nSteps: many"))


@pytest.mark.parametrize(
    "change",
    [
        {"num_inference_steps": 0},
        {"num_inference_steps": 5000},
        {"num_images": 0},
        {"guidance_scale": -1.0},
        {"guidance_scale": float("nan")},
        {"seed": -1},
        {"seed": 2**64},
        {"height": 0},
        {"width": 33},
        {"sampler": "Oiler"},
        {"prompt": "a <rex> dog"},
        {"negative_prompt": "<rex>"},
        {"regions": (Region("a <rex> dog", (0, 0, 1, 1)),)},
    ],
)
def test_bad_settings(shared_base: StableDiffusion, change: dict) -> None:
    with pytest.raises(InputError):
        generate(shared_base, replace(CONFIG, **change))


def test_no_memory_says_what_to_lower(shared_base: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(shared_base.vae, "decode", fail)
    with pytest.raises(InputError, match="lower the size"):
        generate(shared_base, CONFIG)


def test_a_concept_in_the_prompt_counts(base: StableDiffusion) -> None:
    add_tokens(base, "<rex>", torch.randn(2, TEXT_WIDTH, generator=torch.Generator().manual_seed(0)))
    with_rex = generate(base, replace(CONFIG, prompt="a photo of a <rex> dog"))[0]
    assert not same(with_rex, generate(base, replace(CONFIG, prompt="a photo of a dog"))[0])


def test_every_sampler_runs(shared_base: StableDiffusion) -> None:
    for sampler in SAMPLERS:
        picture = generate(shared_base, replace(CONFIG, sampler=sampler, num_inference_steps=2))[0]
        assert pixels(picture).std() > 0, sampler
