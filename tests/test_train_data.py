"""Buckets, crops, captions and the order of pictures: all functions of (seed, step, index)."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.training.captions import draw_caption, with_trigger
from spectral_fusion.training.config import TrainConfig
from spectral_fusion.training.data import LatentPictures, buckets, crop, crop_box
from spectral_fusion.training.randomness import generator
from training import resolved


def settings(**changes: object) -> TrainConfig:
    given = TrainConfig(**{"name": "rex", "class_word": "dog", "batch_size": 2, "caption_dropout": 0.0} | changes)  # type: ignore[arg-type]
    return resolved(given, resolution=32)


def folder_of(path: Path, *sizes: tuple[int, int]) -> ImageFolder:
    for i, (width, height) in enumerate(sizes):
        pixels = np.random.default_rng(i).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
    return ImageFolder.scan(path)


def pictures(base: StableDiffusion, folder: ImageFolder, config: TrainConfig) -> LatentPictures:
    captions = [photo.caption for photo in folder.photos]
    return LatentPictures(base, folder, config, subject="<rex> dog", captions=captions)


@pytest.fixture
def square(tmp_path: Path) -> ImageFolder:
    return folder_of(tmp_path, (40, 40), (40, 40), (40, 40))


@pytest.mark.parametrize(("resolution", "step"), [(512, 64), (768, 64), (64, 16), (32, 8)])
def test_buckets_have_the_same_area_and_fit_the_unet(resolution: int, step: int) -> None:
    sizes = buckets(resolution, step, aspect=True)
    assert (resolution, resolution) in sizes
    for height, width in sizes:
        assert height % step == width % step == 0
        assert 0.7 < height * width / resolution**2 < 1.4
        assert 0.4 < height / width < 2.6


def test_without_aspect_buckets_all_is_square() -> None:
    assert buckets(500, 64, aspect=False) == [(512, 512)]


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (64, 64), (3, 17)])
@pytest.mark.parametrize("position", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.3, 0.9)])
def test_a_crop_is_the_largest_box_of_the_buckets_shape_inside_the_picture(
    size: tuple[int, int], position: tuple[float, float]
) -> None:
    left, top, right, bottom = crop_box(size, (32, 48), position)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert (right - left) / (bottom - top) == pytest.approx(1.5)
    assert right - left == pytest.approx(size[0]) or bottom - top == pytest.approx(size[1])


def test_a_crop_cuts_the_side_that_its_position_says() -> None:
    picture = Image.new("RGB", (64, 32), "red")
    picture.paste("blue", (32, 0, 64, 32))
    assert crop(picture, (32, 32), (0.0, 0.5), False).getpixel((16, 16)) == (255, 0, 0)
    assert crop(picture, (32, 32), (1.0, 0.5), False).getpixel((16, 16)) == (0, 0, 255)
    assert crop(picture, (16, 32), (0.5, 0.5), True).getpixel((4, 8)) == (0, 0, 255)


def test_pictures_of_each_shape_go_to_the_bucket_nearest_in_shape(shared_base: StableDiffusion, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, (40, 40), (80, 40), (40, 80))
    samples = pictures(shared_base, folder, settings())
    assert samples.buckets[0] == (32, 32)
    assert samples.buckets[1][1] > samples.buckets[1][0]
    assert samples.buckets[2][0] > samples.buckets[2][1]


def test_a_sample_depends_on_seed_step_and_index_alone(shared_base: StableDiffusion, square: ImageFolder) -> None:
    config = settings(random_crop=True, flip=True, caption_dropout=0.3)
    forwards, backwards = pictures(shared_base, square, config), pictures(shared_base, square, config)
    places = [(step, index) for step in range(4) for index in range(2)]
    first = {place: forwards.draw(*place) for place in places}
    torch.manual_seed(99)
    second = {place: backwards.draw(*place) for place in reversed(places)}
    for place in places:
        assert torch.equal(first[place].noisy, second[place].noisy)
        assert torch.equal(first[place].target, second[place].target)
        assert (first[place].time, first[place].caption) == (second[place].time, second[place].caption)
    assert len({sample.time for sample in first.values()}) > 4


def test_another_seed_is_another_sample(shared_base: StableDiffusion, square: ImageFolder) -> None:
    one, other = (pictures(shared_base, square, settings(seed=seed)).draw(0, 0) for seed in (0, 1))
    assert not torch.equal(one.target, other.target)


def test_an_epoch_shows_every_picture_as_often_as_it_repeats(shared_base: StableDiffusion, square: ImageFolder) -> None:
    photos = tuple(replace(photo, repeats=1 + i, caption=f"c{i}") for i, photo in enumerate(square.photos))
    samples = pictures(shared_base, replace(square, photos=photos), settings())
    for epoch in range(2):
        seen = Counter(samples.draw(3 * epoch + step, index).caption for step in range(3) for index in range(2))
        assert seen == {"c0": 1, "c1": 2, "c2": 3}


def test_the_cache_changes_nothing(shared_base: StableDiffusion, square: ImageFolder) -> None:
    cached = pictures(shared_base, square, settings(flip=True))
    plain = pictures(shared_base, square, settings(flip=True, cache_latents=False))
    for step in range(6):
        assert torch.equal(cached.draw(step, 0).noisy, plain.draw(step, 0).noisy)


def test_noise_offset_moves_the_mean_of_each_channel(shared_base: StableDiffusion, square: ImageFolder) -> None:
    plain, moved = (pictures(shared_base, square, settings(noise_offset=k)).draw(0, 0).target for k in (0.0, 0.5))
    difference = moved - plain
    assert difference.abs().max() > 0.01
    assert torch.allclose(difference, difference.mean(dim=(1, 2), keepdim=True).expand_as(difference), atol=1e-6)


def test_masks_follow_the_crop_and_the_flip(shared_base: StableDiffusion, tmp_path: Path) -> None:
    folder_of(tmp_path, (64, 64))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "0-masklabel.png")
    samples = pictures(shared_base, ImageFolder.scan(tmp_path), settings(flip=True, masked_loss=True))
    sides = set()
    for step in range(8):
        got = samples.draw(step, 0).mask
        assert got is not None
        assert got.shape == (1, 16, 16)
        left, right = got[..., :7].mean() > 0.9, got[..., 9:].mean() > 0.9
        assert left != right
        sides.add(bool(left))
    assert sides == {True, False}
    assert pictures(shared_base, ImageFolder.scan(tmp_path), settings(masked_loss=False)).draw(0, 0).mask is None


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("a <TOK> dog on grass", "a <rex> dog on grass"),
        ("<rex> asleep", "<rex> asleep"),
        ("a <REX> asleep", "a <rex> asleep"),
        ("a dog and a dogma", "a <rex> dog and a dogma"),
        ("hotdogs on a table", "<rex> dog, hotdogs on a table"),
    ],
)
def test_every_caption_names_the_trigger(caption: str, wanted: str) -> None:
    assert with_trigger(caption, "<rex>", "dog") == wanted


def test_shuffling_keeps_the_first_tags_and_loses_none() -> None:
    config = settings(shuffle_captions=True, keep_tags=2)
    texts = [draw_caption("one, two, three, four, five", "", config, generator(k)) for k in range(20)]
    assert all(text.startswith("one, two, ") for text in texts)
    assert all(sorted(text.split(", ")) == sorted(["one", "two", "three", "four", "five"]) for text in texts)
    assert len(set(texts)) > 3


def test_dropout_empties_its_share_of_captions() -> None:
    config = settings(caption_dropout=0.25)
    empty = sum(draw_caption("a dog", "", config, generator(k)) == "" for k in range(400))
    assert 70 < empty < 130


def test_pictures_without_caption_get_templates_with_the_subject() -> None:
    texts = {draw_caption(None, "<rex> dog", settings(), generator(k)) for k in range(30)}
    assert len(texts) > 1
    assert all(text.endswith("a <rex> dog") for text in texts)
