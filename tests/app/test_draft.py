"""The Generate tab's state, without its widgets."""

from types import SimpleNamespace
from typing import Any

import pytest

from spectral_fusion.errors import InputError
from spectral_fusion.picture import Parameters
from spectral_fusion_app.canvas import blank, canvas_value, drawn_boxes
from spectral_fusion_app.create.draft import (
    Draft,
    follow_boxes,
    insert,
    parse_factors,
    parse_seed,
    region_phrase,
    remove,
    used_concepts,
)


def info(name: str, class_word: str) -> Any:
    return SimpleNamespace(name=name, trigger=f"<{name}>", class_word=class_word)


REX, TOM = info("rex", "dog"), info("tom", "cat")
HALVES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))


def test_pressing_two_chips_writes_a_prompt() -> None:
    prompt = insert(insert("", REX), TOM)
    assert prompt == "a photo of a <rex> dog and a <tom> cat"
    assert insert(prompt, REX) == prompt
    assert insert("a drawing of", TOM) == "a drawing of a <tom> cat"


def test_taking_a_concept_away_leaves_its_class() -> None:
    assert remove("a photo of a <rex> dog and a <tom> cat", REX) == "a photo of a dog and a <tom> cat"
    assert remove("nothing of it", REX) == "nothing of it"


def test_a_region_begins_with_the_whole_prompt_and_its_own_trigger() -> None:
    prompt = "a photo of a <rex> dog and a <tom> cat on grass"
    assert region_phrase(prompt, TOM, [REX, TOM]) == "a photo of a dog and a <tom> cat on grass"
    assert region_phrase("a photo of grass", TOM, [REX, TOM]) == "a <tom> cat"


def test_concepts_in_use_are_those_that_prompts_name_and_pinned_ones() -> None:
    assert used_concepts([REX, TOM], ["a <TOM> cat", ""]) == ["tom"]
    assert used_concepts([REX, TOM], ["", "a <tom> cat"], ["rex"]) == ["rex", "tom"]


def test_a_draft_becomes_a_request() -> None:
    draft = Draft(
        "a <rex> dog and a cat <lora:tom:0.5>",
        weights={"rex": 0.8, "other": 2.0},
        regions=(("a <rex> dog", HALVES[0]), (" ", HALVES[1])),
        width=64.0,  # type: ignore[arg-type]  # sliders give floats
        seed=" 7 ",
        num_images=2,
        factors="0, 1",
    )
    request = draft.request([REX, TOM])
    assert request.weights == {"rex": 0.8, "tom": 0.5}
    assert request.factors == (0.0, 1.0)
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
        (Draft("a dog", factors="0, x"), "no numbers"),
        (Draft("a dog", factors="0, 1"), "weights of concepts"),
        (Draft("a dog", regions=(("a cat", (0.5, 0.0, 0.5, 1.0)),)), "box"),
        (Draft("a dog", steps=0), "num_inference_steps"),
    ],
)
def test_what_cannot_be_used_is_said(draft: Draft, words: str) -> None:
    with pytest.raises(InputError, match=words):
        draft.request([REX])


def test_an_empty_seed_is_drawn_anew() -> None:
    assert parse_seed("") != parse_seed("")
    assert parse_factors("") == (1.0,)


def test_a_picture_brings_its_draft_back() -> None:
    draft = Draft(
        "a <rex> dog",
        "ugly",
        weights={"rex": 0.8},
        pinned=("rex",),
        regions=(("a <rex> dog", HALVES[0]),),
        sampler="Euler",
        steps=4,
        guidance_scale=3.0,
        width=64,
        height=32,
        seed="7",
    )
    settings = {
        "Steps": "4",
        "Sampler": "Euler",
        "CFG scale": "3",
        "Seed": "7",
        "Size": "64x32",
        "Concepts": "rex: 0.8",
    }
    settings["Regions"] = '[["a <rex> dog", [0.0, 0.0, 0.5, 1.0]]]'
    assert Draft.from_parameters(Parameters("a <rex> dog", "ugly", settings)) == draft


def test_prompts_stay_with_their_boxes() -> None:
    left, right = HALVES
    middle, wide = (0.25, 0.0, 0.75, 1.0), (0.0, 0.0, 1.0, 1.0)
    assert follow_boxes([], [left], []) == [None]
    assert follow_boxes([left], [right, left], ["a dog"]) == [None, "a dog"]
    assert follow_boxes([right, left], [right], ["a cat", "a dog"]) == ["a cat"]
    assert follow_boxes([right, left], [left], ["a cat", "a dog"]) == ["a dog"]
    assert follow_boxes([right, left], [right, middle], ["a cat", "a dog"]) == ["a cat", "a dog"]
    assert follow_boxes([right, left], [wide, right, middle], ["a cat", "a dog"]) == [None, "a cat", "a dog"]


def test_boxes_survive_the_canvas() -> None:
    value = canvas_value(64, 32, HALVES)
    assert value["image"].shape[1] == 2 * value["image"].shape[0]
    assert [box for box, _ in drawn_boxes(value)] == list(HALVES)
    assert [color for _, color in drawn_boxes(value)] == [0, 1]


def test_boxes_are_cut_at_the_edge_and_empty_ones_left_out() -> None:
    box = {"xmin": -50, "ymin": 10, "xmax": 9999, "ymax": 20, "color": (1, 2, 3)}
    empty = {"xmin": 5, "ymin": 5, "xmax": 5, "ymax": 5, "color": (1, 2, 3)}
    value = {"image": blank(1, 1), "boxes": [box, empty]}
    [((left, _, right, _), _)] = drawn_boxes(value)
    assert (left, right) == (0.0, 1.0)
    assert drawn_boxes(None) == drawn_boxes({"image": None}) == []
