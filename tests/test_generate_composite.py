"""Compositing: subjects drawn by themselves, cut out along their attention, put in their places."""

import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from concepts import make_concept, same_weights, weights_of
from spectral_fusion.base.regions import Region
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept
from spectral_fusion.errors import InputError
from spectral_fusion.generation import GenerateConfig, Picture, generate
from spectral_fusion.generation import composite as compositing
from spectral_fusion.generation.bound import Live
from spectral_fusion.generation.composite import Cutout, side_by_side
from spectral_fusion.generation.outline import filled, has_outline, outline, taken_out

PROMPT = "a photo of a <rex> dog and a <tom> cat"
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
CONFIG = GenerateConfig(PROMPT, "ugly", num_inference_steps=3, height=32, width=32, guidance_scale=3, composite=0.4)


def disc(size: int, x: float, y: float, radius: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    return (((columns - x) ** 2 + (rows - y) ** 2).sqrt() < radius).float()


def test_an_outline_covers_what_is_attended_to_and_nothing_far_from_it() -> None:
    found = outline(disc(16, 8, 8, 4), (128, 128))
    assert found[64, 64] == 1
    assert found[46:82, 46:82].min() == 1
    assert found[:16].max() == found[:, :16].max() == 0
    assert ((found > 0) & (found < 1)).any(), "the edge is soft"


def test_what_a_subject_encloses_belongs_to_it() -> None:
    ring = disc(16, 8, 8, 6) - disc(16, 8, 8, 3)
    assert outline(ring, (128, 128))[64, 64] == 1


def test_a_subject_that_was_drawn_twice_is_cut_out_once_the_larger() -> None:
    both = torch.maximum(disc(32, 7, 16, 3), disc(32, 24, 16, 5))
    found = outline(both, (128, 128))
    assert found[64, 96] == 1
    assert found[64, 28] == 0
    assert taken_out(both[None], (128, 128))[64, 28] == 1, "but both are taken out of the ground"


def test_attention_to_everything_alike_has_no_outline() -> None:
    maps = torch.stack([disc(16, 8, 8, 4), 1 + 0.01 * disc(16, 8, 8, 4)])
    assert has_outline(maps[:1])
    assert not has_outline(maps)


def test_a_ground_goes_on_sideways_where_subjects_were_taken_out() -> None:
    bands = torch.arange(32.0)[None, :, None].expand(3, 32, 32).contiguous()
    hole = disc(32, 16, 16, 9)
    found = filled(bands * (1 - hole) + 99 * hole, hole)
    assert torch.allclose(found, bands, atol=1e-4)
    noise = torch.rand(3, 32, 32)
    assert torch.equal(filled(noise, hole)[:, hole == 0], noise[:, hole == 0])


def test_all_of_a_picture_can_be_taken_out() -> None:
    assert torch.isfinite(filled(torch.rand(3, 8, 12), torch.ones(8, 12))).all()


def test_found_places_are_of_like_size_and_hardly_overlap() -> None:
    """The first claims nearly everything, the second a corner behind it: both have room all the same."""
    masks = [torch.zeros(16, 16) for _ in range(4)]
    masks[0][1:16, 0:10] = masks[1][6:10, 5:7] = masks[2][8:16, 9:13] = masks[3][6:12, 12:16] = 1
    places = side_by_side(masks)
    areas = [float(place.sum()) for place in places]
    assert max(areas) < 2 * min(areas)
    assert max(float((one * other).sum()) for one, other in itertools.combinations(places, 2)) < 0.25 * min(areas)
    lefts = [int(place.nonzero()[:, 1].min()) for place in places]
    assert lefts == sorted(lefts)
    lowest = [int(place.nonzero()[:, 0].max()) for place in places]
    assert lowest == [15, 9, 15, 11]


@pytest.mark.parametrize("size", [(10, 30), (30, 10), (64, 64)])
def test_a_cutout_fits_its_place_and_stands_on_its_lower_edge(size: tuple[int, int]) -> None:
    image, (x, y) = Cutout(Image.new("RGBA", size)).into((8, 4, 28, 44))
    assert x >= 8
    assert x + image.width <= 28
    assert y >= 4
    assert y + image.height == 44
    assert abs(x + image.width / 2 - 18) <= 0.5
    assert image.width == 20 or image.height == 40


@pytest.fixture(scope="module")
def rex(shared_base: StableDiffusion) -> Concept:
    return make_concept(shared_base, size=0.2)


@pytest.fixture(scope="module")
def tom(shared_base: StableDiffusion) -> Concept:
    return make_concept(shared_base, "tom", band=1, seed=1, size=0.2)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random base attends to everything alike; here it has outlines all the same."""
    monkeypatch.setattr(compositing, "has_outline", lambda maps: True)


def drawn(base: StableDiffusion, concepts: list[Concept], **changes: object) -> Picture:
    regions = (Region("", LEFT, concepts={"rex": 1.0}), Region("", RIGHT, concepts={"tom": 0.8}))
    config = replace(CONFIG, **{"regions": regions, **changes})
    return generate(base, config, concepts=dict.fromkeys(concepts, 1.0))[0]


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


@pytest.mark.usefixtures("seen")
def test_a_seed_gives_the_same_picture_and_the_base_is_as_before(
    shared_base: StableDiffusion, rex: Concept, tom: Concept
) -> None:
    before = weights_of(shared_base)
    first, second = (drawn(shared_base, [rex, tom]) for _ in range(2))
    assert np.array_equal(pixels(first), pixels(second))
    assert same_weights(weights_of(shared_base), before)
    assert not np.array_equal(pixels(first), pixels(drawn(shared_base, [rex, tom], seed=1)))


@pytest.mark.usefixtures("seen")
def test_a_subject_is_what_it_is_alone(
    shared_base: StableDiffusion, rex: Concept, tom: Concept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the left half depends on nothing of the right one's concept."""
    kept: list[list[Cutout]] = []
    pasted = compositing._pasted
    monkeypatch.setattr(
        compositing, "_pasted", lambda ground, cut: (kept.append([c for c, _ in cut]), pasted(ground, cut))[1]
    )
    drawn(shared_base, [rex, tom])
    other = make_concept(shared_base, "tom", band=2, seed=5, size=0.4)
    drawn(shared_base, [rex, other])
    assert np.array_equal(*(np.asarray(cutouts[0].image) for cutouts in kept))
    assert not np.array_equal(*(np.asarray(cutouts[1].image) for cutouts in kept))


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize(
    ("end", "told"), [(" in snow", ("a photo in snow", "ugly", 3.0)), (" (in snow:1.2)", ("", "", 1.0))]
)
def test_the_ground_is_drawn_without_concepts_and_told_no_subject(
    shared_base: StableDiffusion,
    rex: Concept,
    tom: Concept,
    end: str,
    told: tuple[str, str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[GenerateConfig, Live]] = []
    draw = compositing.draw
    monkeypatch.setattr(
        compositing, "draw", lambda base, *given: (calls.append((given[0], given[1])), draw(base, *given))[1]
    )
    drawn(shared_base, [rex, tom], prompt="a photo of a <rex> dog and a <tom> dog" + end)
    ground, live = calls[-1]
    assert (ground.prompt, ground.negative_prompt, ground.guidance_scale) == told
    assert not live.weights
    assert not ground.regions


@pytest.mark.usefixtures("seen")
def test_its_settings_come_back_from_the_picture(shared_base: StableDiffusion, rex: Concept, tom: Concept) -> None:
    found = drawn(shared_base, [rex, tom])
    assert GenerateConfig.from_parameters(found.parameters).composite == 0.4


@pytest.mark.usefixtures("seen")
def test_places_that_are_not_given_are_found(
    shared_base: StableDiffusion, rex: Concept, tom: Concept, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = (Region("", None, concepts={"rex": 1.0}), Region("", None, concepts={"tom": 1.0}))
    monkeypatch.setattr(compositing, "share_out", lambda maps, size: [torch.ones(size), torch.ones(size)])
    found = drawn(shared_base, [rex, tom], regions=regions)
    assert found.parameters.settings["Places"] == "found"
    assert '"mask"' in found.parameters.settings["Regions"]


@pytest.mark.usefixtures("seen")
def test_a_prompt_that_names_classes_alone_will_do(shared_base: StableDiffusion, rex: Concept, tom: Concept) -> None:
    found = drawn(shared_base, [rex, tom], prompt=f"a {rex.class_word} and a {tom.class_word} on grass")
    assert "Composite strength" in found.parameters.settings


def test_without_outlines_it_is_the_bound_way_and_a_note_says_so(
    shared_base: StableDiffusion, rex: Concept, tom: Concept, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(compositing, "has_outline", lambda maps: False)
    with caplog.at_level(logging.WARNING):
        found = drawn(shared_base, [rex, tom])
    assert "no outlines" in caplog.text
    assert "Composite strength" not in found.parameters.settings
    assert np.array_equal(pixels(found), pixels(drawn(shared_base, [rex, tom], composite=0.0)))


def test_a_region_without_a_subject_is_refused_before_anything_is_drawn(
    shared_base: StableDiffusion, rex: Concept
) -> None:
    steps = []
    regions = (Region("", LEFT, concepts={"rex": 1.0}), Region("a house", RIGHT))
    with pytest.raises(InputError, match="region 2 has no concept"):
        generate(shared_base, replace(CONFIG, regions=regions), concepts={rex: 1.0}, on_step=steps.append)
    assert not steps


@pytest.mark.parametrize(("value", "regions"), [(0.5, ()), (1.5, ()), (-0.1, ())])
def test_strengths_and_missing_regions_are_refused(shared_base: StableDiffusion, value: float, regions: tuple) -> None:
    with pytest.raises(InputError, match="composite is"):
        generate(shared_base, replace(CONFIG, composite=value, regions=regions))
