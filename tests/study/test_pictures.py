"""Pictures in batches, and what is read off them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from judging import ColourScorers
from spectral_fusion.base.load import open_base
from spectral_fusion.base.regions import Box, Region
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.evaluate.boxes import region_boxes
from spectral_fusion.evaluate.painter import regions_of
from spectral_fusion.evaluate.similarity import Photos
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.spectral import Factors
from spectral_fusion.training.loop import Diverged
from study import judging as study_judging
from study.identities import Subject
from study.judging import Jury
from study.methods.applied import applying
from study.painting import Request, paint
from study.settings import Settings

SETTINGS = Settings(num_inference_steps=2, prompts=("a photo of a {}", "a {} on grass"), pictures=1)
REQUESTS = [Request("a photo of a dog", 3), Request("a cat on grass", 4), Request("a photo of a dog", 5)]


def largest_difference(first: Image.Image, second: Image.Image) -> int:
    return int(np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).max())


@pytest.mark.parametrize("regions", [(), (Region("a red dog", (0.0, 0.0, 0.5, 1.0)),)])
def test_a_batch_gives_the_pictures_that_generate_gives(
    shared_base: StableDiffusion, regions: tuple[Region, ...]
) -> None:
    asked = [*REQUESTS[:2], replace(REQUESTS[2], regions=regions)]  # of several kinds at once
    pictures = paint(shared_base, asked, SETTINGS)
    for request, picture in zip(asked, pictures, strict=True):
        config = GenerateConfig(request.prompt, num_inference_steps=2, seed=request.seed, regions=request.regions)
        assert largest_difference(picture, generate(shared_base, config)[0].image) <= 1
    assert largest_difference(pictures[0], pictures[2]) > 1


def test_pictures_that_are_not_finite_are_no_pictures(base: StableDiffusion) -> None:
    base.denoiser.conv_out.weight.data[:] = torch.nan
    with pytest.raises(Diverged):
        paint(base, REQUESTS[:1], SETTINGS)


SUBJECTS = [Subject(1, "dog"), Subject(2, "cat"), Subject(3, "car")]
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def jury(base: StableDiffusion, monkeypatch: pytest.MonkeyPatch, shown: list[int]) -> Jury:
    """A jury before which subject i looks like subject `shown[i]`."""

    def draw(base: StableDiffusion, requests: list[Request], settings: Settings) -> list[Image.Image]:
        pictures = []
        for request in requests:
            found = [i for i, subject in enumerate(SUBJECTS) if subject.trigger in request.prompt]
            picture = Image.new("RGB", (40, 40))
            for i, box in zip(found, base.places(len(found)), strict=True):
                picture.paste(COLOURS[shown[i]], _middle(box))
            pictures.append(picture)
        return pictures

    monkeypatch.setattr(study_judging, "paint", draw)
    photos = Photos((), torch.eye(3), torch.arange(3))
    return Jury(base, ColourScorers(), photos, SUBJECTS, SETTINGS)


def _middle(box: Box) -> tuple[int, int, int, int]:
    x, y = round((box.left + box.right) * 20), round((box.top + box.bottom) * 20)
    return x - 3, y - 3, x + 3, y + 3


def test_each_subject_is_compared_with_its_own_photos(
    shared_base: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = jury(shared_base, monkeypatch, [0, 1, 2]).singles([0, 2])
    assert len(shown.pictures) == len(shown.seen) == 4
    assert [part.wanted for part in shown.seen] == [0, 0, 2, 2]
    assert all(part.identity > 0.99 and part.is_right(3) for part in shown.seen)
    assert {part.alignment for part in shown.seen} == {0.5}


def test_who_is_taken_for_another_is_seen_as_such(
    shared_base: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = jury(shared_base, monkeypatch, [0, 2, 2]).singles([1]).seen[0]
    assert found.identity < 0.01
    assert found.similarity[2] > 0.99
    assert not found.is_right(3)


@pytest.mark.parametrize("regions", [False, True])
def test_of_two_in_a_picture_each_is_looked_for_in_its_place(
    shared_base: StableDiffusion, monkeypatch: pytest.MonkeyPatch, regions: bool
) -> None:
    found = jury(shared_base, monkeypatch, [0, 1, 2]).pairs([(0, 1), (1, 2)], regions=regions)
    assert len(found.pictures) == 4
    assert [part.wanted for part in found.seen] == [0, 1, 0, 1, 1, 2, 1, 2]
    assert all(part.identity > 0.99 for part in found.seen)


def test_regions_name_each_subject_in_its_half(shared_base: StableDiffusion) -> None:
    places = shared_base.places(2)
    regions = regions_of([SUBJECTS[0], SUBJECTS[2]], "a {} on grass", places)
    assert [region.prompt for region in regions] == [
        "a <dog1> dog and a car on grass",
        "a dog and a <car3> car on grass",
    ]
    assert [region.box for region in regions] == region_boxes(places)


def test_where_subjects_stand_does_not_depend_on_what_is_in_the_weights() -> None:
    toybox = open_base("toybox")
    expected = open_base("toybox").places(2)
    with applying(lambda base, _: {name: ones(layer) for name, layer in base.layers().items()})(toybox, []):
        assert toybox.places(2) == expected


def ones(layer: nn.Module) -> Factors:
    return Factors(torch.ones(layer.weight.shape[0], 1), torch.ones(1, layer.weight[0].numel()))


def test_photos_are_drawn_once(tmp_path: Path) -> None:
    from study.identities import photos

    first = photos(SUBJECTS[0], tmp_path, 2)
    written = first.photos[0].path.stat().st_mtime_ns
    assert photos(SUBJECTS[0], tmp_path, 2).photos[0].path.stat().st_mtime_ns == written
    assert len(first.photos) == 2
