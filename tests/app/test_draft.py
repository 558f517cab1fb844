"""The Generate tab's state, without its widgets."""

from types import SimpleNamespace
from typing import Any

import pytest

from spectral_fusion.errors import InputError
from spectral_fusion.picture import Parameters
from spectral_fusion_app.create.control import ControlDraft
from spectral_fusion_app.create.draft import Draft, RegionDraft, StartDraft, parse_seed
from spectral_fusion_app.create.grid import Axis
from spectral_fusion_app.create.wording import region_phrase, remove, used_concepts
from spectral_fusion_app.settings import Limits


def info(name: str, class_word: str) -> Any:
    return SimpleNamespace(name=name, trigger=f"<{name}>", class_word=class_word)


REX, TOM = info("rex", "dog"), info("tom", "cat")
HALVES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))


def test_taking_a_concept_away_leaves_its_class() -> None:
    assert remove("a photo of a <rex> dog and a <tom> cat", REX) == "a photo of a dog and a <tom> cat"
    assert remove("nothing of it", REX) == "nothing of it"


def test_a_region_begins_with_the_whole_prompt_and_its_own_trigger() -> None:
    prompt = "a photo of a <rex> dog and a <tom> cat on grass"
    assert region_phrase(prompt, TOM, [REX, TOM]) == "a photo of a dog and a <tom> cat on grass"
    assert region_phrase("a photo of grass", TOM, [REX, TOM]) == "a <tom> cat"


def test_concepts_in_use_are_those_that_prompts_name_and_pinned_ones() -> None:
    assert used_concepts([REX, TOM], ["a <TOM> cat", ""]) == ["tom"]
    assert used_concepts([REX, TOM], ["", "a <tom> cat"], ["rex"]) == ["tom", "rex"]


def test_a_draft_becomes_a_request() -> None:
    draft = Draft(
        "a <rex> dog and a cat <lora:tom:0.5>",
        weights={"rex": 0.8, "other": 2.0},
        regions=(RegionDraft("a <rex> dog", HALVES[0]), RegionDraft(" ", HALVES[1], "tom")),
        width=64.0,  # type: ignore[arg-type]  # sliders give floats
        seed=" 7 ",
        num_images=2,
        axes=(("weights", "0, 1"),),
    )
    request = draft.request([REX, TOM])
    assert request.weights == {"rex": 0.8, "tom": 0.5}
    assert request.axes == (Axis("weights", (0.0, 1.0)),)
    assert request.pictures == 4
    assert request.config.prompt == "a <rex> dog and a cat"
    assert (request.config.seed, request.config.width, request.config.height) == (7, 64, None)
    assert [region.prompt for region in request.config.regions] == ["a <rex> dog", "a <rex> dog and a cat"]


@pytest.mark.parametrize(
    ("draft", "words"),
    [
        (Draft(" "), "prompt is empty"),
        (Draft("a dog", pinned=("tom",)), "no concept 'tom'"),
        (Draft("a dog", seed="-1"), "no whole number"),
        (Draft("a dog", seed="seven"), "no whole number"),
        (Draft("a dog", axes=(("weights", "0, x"),)), "no numbers"),
        (Draft("a dog", axes=(("weights", "0, 1"),)), "weights of concepts"),
        (Draft("a dog", regions=(RegionDraft("a cat", (0.5, 0.0, 0.5, 1.0)),)), "box"),
        (Draft("a dog", steps=0), "num_inference_steps"),
        (Draft("a dog", detail=0.4), "mark each subject"),
        (Draft("a dog", composite=0.3), "mark each subject"),
        (Draft("a dog", upscale=9.0), "upscale is 9"),
    ],
)
def test_what_cannot_be_used_is_said(draft: Draft, words: str) -> None:
    with pytest.raises(InputError, match=words):
        draft.request([REX])


@pytest.mark.parametrize(
    ("draft", "words"),
    [
        (Draft("a dog", steps=5000), "steps is 5000; give a whole number from 1 to 150"),
        (Draft("a dog", steps=0), "steps is 0; give a whole number from 1 to 150"),
        (Draft("a dog", width=10**30), f"width is {10**30}; give a whole number from 1 to 1024"),
        (Draft("a dog", height=-8), "height is -8; give a whole number from 1 to 1024"),
        (Draft("a dog", num_images=20_000), "num_images is 20000; give a whole number from 1 to 36"),
    ],
)
def test_the_bounds_that_are_told_are_those_of_the_page(draft: Draft, words: str) -> None:
    with pytest.raises(InputError, match=words):
        draft.request([REX], limits=Limits())


def test_an_empty_seed_is_drawn_anew() -> None:
    assert parse_seed("") != parse_seed("")


def test_a_picture_brings_its_draft_back() -> None:
    draft = Draft(
        "a <rex> dog",
        "ugly",
        weights={"rex": 0.8},
        pinned=("rex",),
        regions=(RegionDraft("a <rex> dog", HALVES[0]),),
        sampler="Euler",
        steps=4,
        guidance_scale=3.0,
        width=64,
        height=32,
        seed="7",
        start=StartDraft("0123456789", 0.3, "bWFzaw=="),
        control=ControlDraft("9876543210", "edges", 0.5, 0.1, 0.8),
        upscale=1.5,
        upscale_strength=0.2,
        detail=0.5,
        composite=0.3,
    )
    settings = {
        "Steps": "4",
        "Sampler": "Euler",
        "CFG scale": "3",
        "Seed": "7",
        "Size": "64x32",
        "Concepts": "rex: 0.8",
    }
    settings |= {"Init image": "0123456789", "Denoising strength": "0.3", "Mask": "bWFzaw=="}
    settings |= {
        "Control image": "9876543210",
        "ControlNet": "edges",
        "Control scale": "0.5",
        "Control steps": "0.1-0.8",
    }
    settings |= {"Hires upscale": "1.5", "Hires strength": "0.2", "Detail strength": "0.5"}
    settings["Composite strength"] = "0.3"
    settings["Regions"] = '[["a <rex> dog", [0.0, 0.0, 0.5, 1.0]]]'
    assert Draft.from_parameters(Parameters("a <rex> dog", "ugly", settings)) == draft
