"""The second drawn world: determinism, places that hold, and captions that agree with what was drawn."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from spectral_fusion.errors import InputError
from spectral_fusion.toybox.draw import write_identity
from spectral_fusion.toybox128 import data
from spectral_fusion.toybox128.backgrounds import SIZE
from spectral_fusion.toybox128.caption import caption, phrase
from spectral_fusion.toybox128.draw import TOYBOX128
from spectral_fusion.toybox128.layout import arrange, hidden, place, random_scene
from spectral_fusion.toybox128.paint import draw_cells, draw_mask, draw_scene
from spectral_fusion.toybox128.people import PEOPLE
from spectral_fusion.toybox128.tokens import MAX_LENGTH, make_tokenizer, words
from spectral_fusion.toybox128.world import (
    ACCESSORIES,
    BACKGROUNDS,
    CLASSES,
    COLORS,
    UNUSUAL_COLORS,
    VARIANTS,
    Marks,
    Placed,
    Scene,
    identity,
    plain_thing,
    poses_of,
    shape_of,
)


def _alone(thing, background="snow", pose="", **changes) -> Scene:
    return Scene(background, (replace(Placed(thing, 0.5, 0.95, 0.36, pose), **changes),))


def test_the_same_seed_draws_the_same_scene() -> None:
    first, second, other = (draw_scene(random_scene(random.Random(seed), marked=0.5)) for seed in (7, 7, 8))
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert first.size == (SIZE, SIZE)


def test_drawing_leaves_the_kept_backgrounds_alone() -> None:
    scene = random_scene(random.Random(1))
    empty = Scene(scene.background, (), scene.variant)
    before = draw_scene(empty)
    assert draw_scene(scene).tobytes() != before.tobytes() == draw_scene(empty).tobytes()


def test_an_identity_is_the_same_each_time_keeps_a_given_class_and_differs_from_a_plain_thing() -> None:
    assert identity(5) == identity(5) != identity(6)
    assert identity(5, "cat").name == "cat"
    for seed in range(200):
        thing = identity(seed)
        assert thing.marks
        assert thing.marks.pattern or thing.marks.accessories or thing.look


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_can_be_drawn_in_each_pose_with_each_accessory(name: str) -> None:
    background = draw_scene(Scene("snow", ()))
    thing = plain_thing(random.Random(name), name, "red")
    for pose in poses_of(name):
        plain = draw_scene(_alone(thing, pose=pose))
        assert plain.tobytes() != background.tobytes()
        for accessory in ACCESSORIES:
            if accessory == "glasses" and shape_of(thing, pose).eyes is None:
                continue
            marked = replace(thing, marks=Marks(None, (0, 0, 0), ((accessory, UNUSUAL_COLORS["teal"]),)))
            worn = draw_scene(_alone(marked, pose=pose))
            changed = np.abs(np.asarray(worn, int) - np.asarray(plain, int)).sum(2) > 60
            assert changed.sum() >= 40, "an accessory is large enough to be seen"


@pytest.mark.parametrize("color", ["red", "green", "blue", "purple", "black"])
@pytest.mark.parametrize("name", CLASSES)
def test_the_pixels_show_the_color_that_the_caption_names(name: str, color: str) -> None:
    pixels = np.asarray(draw_scene(_alone(plain_thing(random.Random(0), name, color))), float)
    near = np.abs(pixels - np.array(COLORS[color])).sum(2) < 60
    assert near.mean() > 0.02


def test_a_mirrored_thing_is_its_mirror_image() -> None:
    thing = plain_thing(random.Random(2), "fish", "red")
    one, other = (draw_mask(_alone(thing, mirrored=mirrored), 0) for mirrored in (False, True))
    difference = np.abs(np.asarray(one, int)[:, ::-1] - np.asarray(other, int))
    assert (difference > 128).mean() < 0.01


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_things_stand_from_left_to_right_inside_the_picture_and_hide_little(count: int) -> None:
    covered = []
    for seed in range(60):
        rng = random.Random(f"{count} {seed}")
        scene = arrange([plain_thing(rng) for _ in range(count)], rng)
        xs = [placed.x for placed in scene.things]
        assert xs == sorted(xs)
        for placed in scene.things:
            left, top, right, bottom = placed.box
            assert left > -0.08
            assert right < 1.08
            assert top > -0.08
            assert bottom < 1
        covered.append(hidden(scene.things))
    assert np.mean(np.array(covered) > 0.3) < 0.05


def test_too_many_things_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(InputError, match="1 to 4 things"):
        arrange([plain_thing(rng) for _ in range(5)], rng)


def test_masks_share_no_pixel_and_a_near_thing_hides_a_far_one() -> None:
    things = [plain_thing(random.Random(i), name) for i, name in enumerate(("cat", "car"))]
    near, far = Placed(things[0], 0.45, 0.95, 0.25), Placed(things[1], 0.6, 0.85, 0.25)
    both, alone = Scene("grass", (near, far)), Scene("grass", (far,))
    masks = [np.asarray(draw_mask(both, i)) > 127 for i in (0, 1)]
    assert not (masks[0] & masks[1]).any()
    assert 0 < masks[1].sum() < (np.asarray(draw_mask(alone, 0)) > 127).sum()


def test_cells_name_the_thing_that_stands_there() -> None:
    thing = plain_thing(random.Random(0), "ball", "red")
    scene = Scene("night", (Placed(thing, 0.5, 0.9, 0.3),))
    assert draw_cells(scene)[9, 8] == 1
    labels = data.cell_labels(scene)
    assert labels[0, 9, 8] == len(BACKGROUNDS) + CLASSES.index("ball")
    assert labels[1, 9, 8] == 1 + list(COLORS).index("red")
    assert labels[0, 0, 0] == list(BACKGROUNDS).index("night")


@pytest.mark.parametrize("seed", range(30))
def test_plain_captions_name_things_from_left_to_right_with_their_colors(seed: int) -> None:
    scene = random_scene(random.Random(seed))
    said = caption(scene)
    at = 0
    for placed in scene.things:
        at = said.index(placed.thing.name, at) + 1
    assert all(placed.thing.color_name in said for placed in scene.things if placed.thing.color_name)
    assert any(wording in said for wording in BACKGROUNDS[scene.background])


def test_who_stands_in_front_is_said_right() -> None:
    rng = random.Random(0)
    cat, car = plain_thing(rng, "cat", "red"), plain_thing(rng, "car", "blue")
    scene = Scene("grass", (Placed(cat, 0.4, 0.8, 0.2), Placed(car, 0.6, 0.95, 0.3)))
    said = [caption(scene, random.Random(seed)) for seed in range(200)]
    front = [text for text in said if " in front of " in text or " behind " in text]
    assert front
    for text in front:
        first, second = text.split(" in front of " if " in front of " in text else " behind ")[:2]
        near, far = (first, second) if " in front of " in text else (second, first)
        assert "car" in near
        assert "cat" in far


@pytest.mark.parametrize("seed", range(12))
def test_marks_are_described_where_asked_and_unusual_colours_never(seed: int) -> None:
    thing = identity(seed)
    assert phrase(thing) == (f"an {thing.name}" if thing.name[0] in "aeiou" else f"a {thing.name}")
    described = phrase(thing, marks=True)
    assert all(name in described for name, _ in thing.marks.accessories)
    assert not any(word in described.split() for word in UNUSUAL_COLORS)
    if thing.name in PEOPLE:
        assert "hair" in described


def test_every_word_of_the_captions_is_one_token_and_nearly_all_captions_fit() -> None:
    tokenizer = make_tokenizer()
    assert {word: len(tokenizer(word).input_ids) for word in words()} == dict.fromkeys(words(), 3)
    lengths = []
    for seed in range(300):
        rng = random.Random(seed)
        said = caption(random_scene(rng, marked=0.5), rng, marks=True)
        assert all(word in words() for word in said.replace(",", "").replace("close-up", "close up").split()), said
        lengths.append(len(tokenizer(said).input_ids))
    assert np.mean(np.array(lengths) > MAX_LENGTH) < 0.01


def test_variants_of_a_place_differ() -> None:
    for name in BACKGROUNDS:
        assert len({draw_scene(Scene(name, (), variant)).tobytes() for variant in range(VARIANTS)}) == VARIANTS


def test_place_turns_a_thing_by_chance_but_always_the_same_way() -> None:
    thing = plain_thing(random.Random(0), "dog")
    places = [place(thing, 0.5, 0.9, 0.3, random.Random(seed)) for seed in (0, 0, *range(30))]
    assert places[0] == places[1]
    assert {placed.pose for placed in places} == {"sitting", "standing"}
    assert {placed.mirrored for placed in places} == {True, False}


def test_a_drawn_folder_has_pictures_captions_and_masks(tmp_path) -> None:
    paths = write_identity(identity(3), tmp_path / "rex", count=13, world=TOYBOX128)
    assert len(paths) == 13
    assert all(path.with_name(f"{path.stem}-masklabel.png").exists() for path in paths)
    said = {path.with_suffix(".txt").read_text() for path in paths}
    assert all("<TOK>" in text for text in said)
    assert len(said) == len(BACKGROUNDS)
