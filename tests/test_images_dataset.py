"""Dataset files of kohya's scripts."""

import json
from pathlib import Path

import pytest

from spectral_fusion.cli.train import build_config, read_images
from spectral_fusion.concept.images.dataset import read_dataset
from spectral_fusion.errors import InputError
from training import draw_photos

FILE = """
[general]
shuffle_caption = true
caption_extension = ".txt"
keep_tokens = 1
color_aug = true

[[datasets]]
resolution = [64, 64]
batch_size = 2
enable_bucket = true
keep_tokens = 2

  [[datasets.subsets]]
  image_dir = "near"
  class_tokens = "sks dog"
  num_repeats = 3
  caption_prefix = "a photo of"

  [[datasets.subsets]]
  image_dir = "far"
  class_tokens = "sks dog"

  [[datasets.subsets]]
  is_reg = true
  image_dir = "dogs"
  class_tokens = "dog"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for name, count in (("near", 2), ("far", 1), ("dogs", 3)):
        draw_photos(tmp_path / name, count)
    (tmp_path / "near" / "0.txt").write_text("sks dog, on grass")
    path = tmp_path / "dataset.toml"
    path.write_text(FILE)
    return path


def test_folders_become_the_pictures_of_one_subject(file: Path) -> None:
    dataset = read_dataset(file)
    photos = dataset.images.photos
    assert [(photo.path.parent.name, photo.repeats) for photo in photos] == [("near", 3), ("near", 3), ("far", 1)]
    assert [photo.caption for photo in photos] == ["a photo of sks dog, on grass", None, None]
    assert dataset.images.class_word == "dog"


def test_settings_come_from_the_narrowest_scope_under_our_names(file: Path) -> None:
    settings = read_dataset(file).settings
    assert settings == {
        "resolution": 64,
        "batch_size": 2,
        "aspect_buckets": True,
        "shuffle_captions": True,
        "keep_tags": 2,
        "class_images": str(file.parent / "dogs"),
    }


def test_what_has_no_counterpart_is_named(file: Path) -> None:
    (line,) = [note for note in read_dataset(file).images.warnings if "color_aug" in note]
    assert "no effect" in line
    assert not any("caption_extension" in note for note in read_dataset(file).images.warnings)


def test_flags_come_before_the_file(file: Path) -> None:
    images, chosen = read_images(file, {"name": "rex", "batch_size": 5})
    config = build_config(chosen, images)
    assert (config.batch_size, config.resolution, config.class_word) == (5, 64, "dog")


def test_the_same_in_json(file: Path) -> None:
    subset = {"image_dir": str(file.parent / "far"), "class_tokens": "dog"}
    other = file.with_suffix(".json")
    other.write_text(json.dumps({"datasets": [{"resolution": 48, "subsets": [subset]}]}))
    dataset = read_dataset(other)
    assert dataset.settings == {"resolution": 48}
    assert len(dataset.images.photos) == 1


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('class_tokens = "sks dog"\n  num_repeats', 'class_tokens = "sks cat"\n  num_repeats', "cat, dog"),
        ("num_repeats = 3", "num_repeats = 0", "num_repeats is 0"),
        ("num_repeats = 3", 'num_repeats = "x"', "num_repeats is 'x'"),
        ("num_repeats = 3", "keep_tokens = 1", "keep_tokens is not the same"),
        ("resolution = [64, 64]", "resolution = [64, 0]", "resolution is"),
        ('image_dir = "near"', 'image_dir = "nowhere"', "nowhere does not exist"),
        ('image_dir = "near"', "", "no image_dir"),
        ("[[datasets]]", "[[data]]", "no \\[\\[datasets\\]\\]"),
        ("[general]", "[general", "not valid TOML"),
    ],
)
def test_each_fault_is_one_line_that_names_it(file: Path, before: str, after: str, said: str) -> None:
    broken = FILE.replace(before, after, 1)
    file.write_text(broken.replace("[datasets.subsets]", "[data.subsets]") if after == "[[data]]" else broken)
    with pytest.raises(InputError, match=said):
        read_dataset(file)


def test_two_folders_of_class_pictures_are_refused(file: Path) -> None:
    file.write_text(FILE + '\n  [[datasets.subsets]]\n  is_reg = true\n  image_dir = "far"\n')
    with pytest.raises(InputError, match="put them into one"):
        read_dataset(file)


def test_a_file_of_class_pictures_alone_has_no_subject(file: Path) -> None:
    file.write_text('[[datasets]]\n[[datasets.subsets]]\nis_reg = true\nimage_dir = "dogs"\n')
    with pytest.raises(InputError, match="names no folder of a subject"):
        read_dataset(file)
