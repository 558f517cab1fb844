"""Concepts bound to places in whole pictures: equal to fusing where they should be, and without effect elsewhere."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from concepts import make_concept, same_weights, weights_of
from spectral_fusion.adapter.placed import PlacedDelta
from spectral_fusion.base.painted import mask_tensor, tensor_text
from spectral_fusion.base.regions import Region
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept
from spectral_fusion.concept.community import LoraFile
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, Picture, generate
from spectral_fusion.generation.bound import Live, bound
from spectral_fusion.generation.found import share_out
from spectral_fusion.picture import Parameters
from spectral_fusion.spectral import Factors

ALL, LEFT, RIGHT = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
PROMPT = "a photo of a <rex> dog and a <tom> cat"
CONFIG = GenerateConfig(PROMPT, "ugly", num_inference_steps=3, height=32, width=32, guidance_scale=3)


@pytest.fixture(scope="module")
def rex(shared_base: StableDiffusion) -> Concept:
    return make_concept(shared_base, size=0.2)


@pytest.fixture(scope="module")
def tom(shared_base: StableDiffusion) -> Concept:
    return make_concept(shared_base, "tom", band=1, mode="rotational", seed=1, size=0.2)


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def drawn(base: StableDiffusion, concepts: dict, *regions: Region, **changes: object) -> np.ndarray:
    return pixels(generate(base, replace(CONFIG, regions=regions, **changes), concepts=concepts)[0])


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_one_region_that_is_everything_is_the_plain_way(
    base: StableDiffusion, rex: Concept, tom: Concept, guidance_scale: float
) -> None:
    """Live deltas and merged ones round differently, in the seventh digit; hence one level of 256."""
    everything = Region(PROMPT, ALL, concepts={"rex": 0.9, "tom": -0.7})
    found = drawn(base, {rex: 1.0, tom: 1.0}, everything, guidance_scale=guidance_scale)
    without_regions = drawn(base, {rex: 0.9, tom: -0.7}, guidance_scale=guidance_scale)
    fusion = fuse(base, {rex: 0.9, tom: -0.7})
    plain = drawn(base, {}, guidance_scale=guidance_scale)
    fusion.undo()
    assert np.abs(found - plain).max() <= 1
    assert np.abs(without_regions - plain).max() <= 1


def test_a_concept_acts_in_its_region_and_the_base_outside(base: StableDiffusion, rex: Concept, tom: Concept) -> None:
    """A random UNet carries everything everywhere; a trained one does so less, and yet a little."""
    before = weights_of(base)
    left, right = (
        drawn(base, {rex: 1.0, tom: 0.0}, Region(PROMPT, box, concepts={"rex": 1.0}), num_inference_steps=1)
        for box in (LEFT, RIGHT)
    )
    nobody = drawn(base, {rex: 0.0, tom: 0.0}, Region(PROMPT, LEFT), num_inference_steps=1)
    changes = [np.abs(picture - nobody).mean((0, 2)) for picture in (left, right)]
    assert changes[0][:16].mean() > changes[1][:16].mean()
    assert changes[0][16:].mean() < changes[1][16:].mean()
    assert same_weights(weights_of(base), before)
    assert not base.triggers()


def test_one_layer_alone_changes_nothing_outside_its_place(base: StableDiffusion) -> None:
    """The noise that the UNet predicts, for a LoRA on the last layer that sees cells on their own."""
    layer = base.layers()["unet.conv_out"]
    rows, columns = layer.weight.flatten(1).shape
    lora = LoraFile("last", {"unet.conv_out": Factors(torch.ones(rows, 1), torch.ones(1, columns))})
    answers = []
    for weight in (0.0, 1.0):
        config = replace(CONFIG, prompt="a dog", regions=(Region("a dog", LEFT, concepts={"last": weight}),))
        with bound(base, config, Live.of({lora: 1.0}), (16, 16)) as (_, told), torch.no_grad():
            sample = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
            answers.append(base.predict(sample, torch.tensor([500]), told.own[1:2]))
    assert torch.equal(answers[0][..., 8:], answers[1][..., 8:])
    assert not torch.equal(answers[0][..., :8], answers[1][..., :8])


def test_a_lora_is_placed_like_a_concept(base: StableDiffusion, rex: Concept) -> None:
    as_lora = LoraFile(
        "rex", {n: rex.factors(n) for n in rex.layers}, embeddings={"<rex>": rex.embeddings["text_encoder"]}
    )
    region = Region("a <rex> dog", LEFT, concepts={"rex": 0.8})
    found = [drawn(base, {subject: 1.0}, region, prompt="a <rex> dog") for subject in (rex, as_lora)]
    assert np.abs(found[0] - found[1]).max() <= 1


def test_a_style_acts_everywhere_beside_bound_concepts(base: StableDiffusion, rex: Concept, tom: Concept) -> None:
    region = Region(PROMPT, LEFT, concepts={"rex": 1.0})
    pictures = [drawn(base, {rex: 1.0, tom: weight}, region) for weight in (0.0, 1.0)]
    assert np.abs(pictures[0] - pictures[1])[:, 16:].mean() > 0.5


def test_from_a_step_to_a_step(base: StableDiffusion, rex: Concept, tom: Concept) -> None:
    region = Region(PROMPT, LEFT, concepts={"rex": 1.0})
    kinds = [{}, {"rex": (0.0, 0.4)}, {"rex": (0.4, 1.0)}, {"rex": (0.0, 1.0)}]
    pictures = [drawn(base, {rex: 1.0, tom: 1.0}, region, spans=spans) for spans in kinds]
    assert np.array_equal(pictures[0], pictures[3])
    assert len({picture.tobytes() for picture in pictures}) == 3
    with pytest.raises(InputError, match=r"acts from 0\.5-0\.2"):
        replace(CONFIG, spans={"rex": (0.5, 0.2)})


def test_a_picture_says_how_its_places_were_and_makes_them_again(
    base: StableDiffusion, rex: Concept, tom: Concept
) -> None:
    mask = torch.zeros(16, 16)
    mask[4:, 8:] = 0.5
    regions = (
        Region(PROMPT, LEFT, concepts={"rex": 1.0}),
        Region("", painted=tensor_text(mask), concepts={"tom": 0.6}),
    )
    config = replace(CONFIG, regions=regions, spans={"tom": (0.25, 1.0)})
    picture = generate(base, config, concepts={rex: 1.0, tom: 1.0})[0]
    parameters = Parameters.parse(str(picture.parameters))
    assert parameters.weights == {"rex": 1.0, "tom": 1.0}
    again = GenerateConfig.from_parameters(parameters)
    assert again == replace(config, notes={})
    assert np.array_equal(pixels(generate(base, again, concepts={rex: 1.0, tom: 1.0})[0]), pixels(picture))


def test_places_are_found_and_recorded(base: StableDiffusion, rex: Concept, tom: Concept, monkeypatch) -> None:
    monkeypatch.setattr("spectral_fusion.generation.outline.CONTRAST", 1.0)  # a random UNet attends evenly
    regions = (Region(PROMPT, concepts={"rex": 1.0}), Region(PROMPT, concepts={"tom": 1.0}))
    picture = generate(base, replace(CONFIG, regions=regions), concepts={rex: 1.0, tom: 1.0})[0]
    assert picture.parameters.settings["Places"] == "found"
    again = GenerateConfig.from_parameters(picture.parameters)
    masks = [mask_tensor(region.painted) for region in again.regions]
    assert not (masks[0] * masks[1]).any()
    assert all(mask.any() for mask in masks)
    assert np.array_equal(pixels(generate(base, again, concepts={rex: 1.0, tom: 1.0})[0]), pixels(picture))


def test_places_that_are_not_found_leave_the_plain_way_and_a_note(
    base: StableDiffusion, rex: Concept, tom: Concept, caplog: pytest.LogCaptureFixture
) -> None:
    regions = (Region("a <rex> dog", concepts={"rex": 0.9}), Region("a <tom> cat", concepts={"tom": 0.8}))
    with caplog.at_level(logging.WARNING):
        config = replace(CONFIG, prompt="a photo of a dog", regions=regions)
        picture = generate(base, config, concepts={rex: 1.0, tom: 1.0})[0]
    assert "the prompt does not name <rex>" in caplog.text
    assert "no places were found" in caplog.text
    assert picture.parameters.settings["Places"] == "not found"
    assert "Regions" not in picture.parameters.settings
    plain = drawn(base, {rex: 0.9, tom: 0.8}, prompt="a photo of a dog")
    assert np.array_equal(pixels(picture), plain)


def test_maps_are_shared_out() -> None:
    maps = torch.zeros(2, 8, 8)
    maps[0, 2:6, :3] = 1
    maps[1, 2:6, 5:] = 0.1
    first, second = share_out(maps, (16, 16))
    assert first.shape == (16, 16)
    assert first[8, 2] == second[8, 13] == 1
    assert first[8, 13] == second[8, 2] == 0
    assert first[0, 8] == second[0, 8] == 0
    assert share_out(torch.ones(2, 8, 8), (8, 8)) is None


def test_overlapping_regions_are_told(base: StableDiffusion, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        drawn(base, {}, Region("a dog", ALL), Region("a cat", LEFT), prompt="a dog")
    assert "regions 1 and 2 overlap in 50 % of the picture" in caplog.text


def test_what_cannot_be_bound(base: StableDiffusion, rex: Concept, tom: Concept) -> None:
    before = weights_of(base)
    with pytest.raises(InputError, match=r"'rax', which is not loaded; did you mean 'rex'"):
        drawn(base, {rex: 1.0, tom: 1.0}, Region(PROMPT, LEFT, concepts={"rax": 1.0}))
    with pytest.raises(InputError, match="17 regions"):
        replace(CONFIG, regions=(Region("x", ALL),) * 17)
    fusion = fuse(base, {rex: 1.0})
    with pytest.raises(InputError, match="undo that fusion"):
        drawn(base, {tom: 1.0}, Region(PROMPT, LEFT, concepts={"tom": 1.0}))
    fusion.undo()
    assert same_weights(weights_of(base), before)
    assert PlacedDelta({}).end == 1.0
