"""The drawn world: determinism, and captions that agree with what was drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest
from typer.testing import CliRunner

from spectral_fusion.errors import InputError
from spectral_fusion.toybox import draw
from spectral_fusion.toybox.data import labels
from spectral_fusion.toybox.paint import SIZE, draw_mask, draw_scene
from spectral_fusion.toybox.tokens import make_tokenizer, words
from spectral_fusion.toybox.world import (
    BACKGROUNDS,
    CLASSES,
    COLOR_NAMES,
    COLORS,
    PATTERN_WORDS,
    UNUSUAL_COLORS,
    arrange,
    caption,
    identity,
    plain_thing,
    random_scene,
)


def test_the_same_seed_draws_the_same_scene():
    first, second, other = (draw_scene(random_scene(random.Random(seed), marked=0.5)) for seed in (7, 7, 8))
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert first.size == (SIZE, SIZE)


def test_an_identity_is_the_same_each_time_and_keeps_a_given_class():
    assert identity(5) == identity(5) != identity(6)
    assert identity(5, "cat").name == "cat"
    assert all(identity(seed).marks is not None for seed in range(50))


@pytest.mark.parametrize("seed", range(20))
def test_captions_name_the_things_from_left_to_right(seed):
    scene = random_scene(random.Random(seed))
    said = caption(scene, random.Random(seed)).replace(",", " ").split()
    named = [word for word in said if word in CLASSES]
    colored = [word for word in said if word in COLORS]
    placed = sorted(scene.things, key=lambda thing: thing.x)
    assert named == [thing.thing.name for thing in placed]
    assert colored == [thing.thing.color_name for thing in placed]
    assert any(wording in caption(scene, random.Random(seed)) for wording in BACKGROUNDS[scene.background])


def _share_of_color(image, color: str) -> float:
    """Part of the pixels that are nearer to this named colour than to any other and close to it."""
    pixels = np.asarray(image, dtype=float).reshape(-1, 3)
    distances = np.stack([np.abs(pixels - np.array(rgb)).sum(1) for rgb in COLORS.values()])
    index = list(COLORS).index(color)
    return float(((distances.argmin(0) == index) & (distances[index] < 60)).mean())


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("name", CLASSES)
def test_the_pixels_show_the_color_that_the_caption_names(name, color):
    rng = random.Random(f"{name} {color}")
    scene = arrange([plain_thing(rng, name, color)], rng, "snow")
    image = draw_scene(scene)
    box = tuple(round(v * SIZE) for v in scene.things[0].box)
    shares = {other: _share_of_color(image.crop(box), other) for other in COLORS}
    assert max(shares, key=shares.get) == color
    assert shares[color] > 0.08


def test_a_mask_covers_its_own_thing_only():
    rng = random.Random(0)
    scene = arrange([plain_thing(rng, "cat"), plain_thing(rng, "car")], rng)
    left, right = (np.asarray(draw_mask(scene, i)) > 127 for i in (0, 1))
    assert left.any()
    assert right.any()
    assert not (left & right).any()
    for mask, placed in ((left, scene.things[0]), (right, scene.things[1])):
        columns = np.flatnonzero(mask.any(0))
        assert placed.box[0] * SIZE - 2 <= columns.min() < columns.max() <= placed.box[2] * SIZE + 2


def test_labels_read_the_scene():
    rng = random.Random(3)
    scene = arrange([plain_thing(rng, "dog", "blue"), plain_thing(rng, "mug", "red")], rng, "night")
    read = labels(scene).tolist()
    assert read[:3] == [1 + CLASSES.index("dog"), 0, 1 + CLASSES.index("mug")]
    assert read[3:6] == [1 + list(COLORS).index("blue"), 0, 1 + list(COLORS).index("red")]
    assert read[6] == list(BACKGROUNDS).index("night")


def test_every_word_of_the_world_is_one_token():
    tokenizer = make_tokenizer()
    assert {word: len(tokenizer(word).input_ids) for word in words()} == dict.fromkeys(words(), 3)


def test_any_text_survives_the_tokenizer():
    tokenizer = make_tokenizer()
    ids = tokenizer("a quixotic zebra, naïve").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "aquixoticzebra,naïve"


def test_drawn_folder_has_pictures_captions_and_masks(tmp_path):
    draw.write_identity(identity(3), tmp_path / "rex", count=6)
    names = sorted(path.name for path in (tmp_path / "rex").iterdir())
    assert len([name for name in names if name.endswith("-masklabel.png")]) == 6
    assert all("<TOK>" in path.read_text() for path in (tmp_path / "rex").glob("*.txt"))
    said = {path.read_text() for path in (tmp_path / "rex").glob("*.txt")}
    assert len(said) == 6, "six backgrounds"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["identity", "--class", "dragon"], "cat"),
        (["scene", "--color", "ultraviolet"], "red"),
        (["scene", "--background", "moon"], "grass"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(tmp_path, arguments, hint):
    result = CliRunner().invoke(draw.app, [*arguments, "--out", str(tmp_path / "new")])
    assert isinstance(result.exception, InputError)
    assert hint in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        draw.write_identity(identity(1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("seed", range(8))
def test_marks_are_described_where_asked_and_unusual_colours_never(seed: int) -> None:
    thing = identity(1_000_000 + seed)
    scene = arrange([thing], random.Random(seed))
    plain, described = caption(scene), caption(scene, marks=True)
    words = {thing.marks.accessory, PATTERN_WORDS.get(thing.marks.pattern)} - {None}
    assert all(word in described for word in words)
    assert not any(word in plain for word in words)
    said = {thing.color, thing.marks.pattern_color if thing.marks.pattern in PATTERN_WORDS else None}
    said |= {thing.marks.accessory_color if thing.marks.accessory else None}
    assert {word for word in described.split() if word in COLORS} == {COLOR_NAMES[c] for c in said if c in COLOR_NAMES}
    assert not any(word in described for word in UNUSUAL_COLORS)
