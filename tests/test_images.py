"""A folder of pictures: every layout that is promised, and every file that cannot be used, named."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spectral_fusion.concept.images import ImageFolder, read_picture
from spectral_fusion.errors import InputError

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
ORIENTATION = 0x0112


def picture(
    path: Path, size: tuple[int, int] = (40, 30), colour: Any = (200, 30, 60), mode: str = "RGB", **save: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **save)
    return path


def names(folder: ImageFolder) -> list[str]:
    return [photo.path.name for photo in folder.photos]


def left_out(folder: ImageFolder, name: str) -> str:
    """The one warning about `name`."""
    (line,) = [line for line in folder.warnings if name in line]
    return line


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder with one good picture, for a bad one to lie beside."""
    picture(tmp_path / "good.png")
    return tmp_path


def test_every_ending_in_any_case(tmp_path: Path) -> None:
    wanted = ["a.JPG", "b.jpeg", "c.Png", "d.webp", "e.BMP", "f.avif"]
    for name in wanted:
        picture(tmp_path / name)
    folder = ImageFolder.scan(tmp_path)
    assert names(folder) == wanted
    assert folder.warnings == ()
    assert all(folder.read(photo).mode == "RGB" for photo in folder.photos)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # shown upright after a quarter turn clockwise
    image = Image.new("RGB", (40, 20), "white")
    image.paste("red", (0, 0, 20, 20))
    image.save(tmp_path / "a.png", exif=exif)
    folder = ImageFolder.scan(tmp_path)
    (photo,) = folder.photos
    assert (photo.width, photo.height) == (20, 40)
    assert folder.read(photo).size == (20, 40)
    assert folder.read(photo).getpixel((10, 5)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_flattened_on_the_stated_colour(tmp_path: Path, mode: str) -> None:
    if mode == "P":
        Image.new("P", (20, 20), 0).save(tmp_path / "a.png", transparency=0)
    else:
        picture(tmp_path / "a.png", (20, 20), (0,) * len(mode), mode)
    folder = ImageFolder.scan(tmp_path, background="#00ff00")
    assert folder.read(folder.photos[0]).getpixel((3, 3)) == (0, 255, 0)
    assert any("a.png" in line and "#00ff00" in line for line in folder.warnings)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 0x8000, np.uint16)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").getpixel((0, 0)) == (128, 128, 128)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", colour=(0, 255, 255, 0), mode="CMYK", quality=100)
    red, green, blue = np.asarray(read_picture(tmp_path / "a.jpg"))[5, 5]
    assert red > 200
    assert max(green, blue) < 60


def test_a_multi_picture_jpeg_of_a_camera_is_a_still_picture(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert names(ImageFolder.scan(tmp_path)) == ["a.jpg"]


@pytest.mark.parametrize("name", ["bad.png", "bad.webp", "bad.avif"])
def test_an_animated_file_is_left_out(good: Path, name: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(good / name, save_all=True, append_images=frames[1:])
    folder = ImageFolder.scan(good)
    assert names(folder) == ["good.png"]
    assert "animated" in left_out(folder, name)


@pytest.mark.parametrize("name", ["bad.jpg", "bad.png", "bad.webp", "bad.bmp", "bad.avif"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5])
def test_a_truncated_file_is_left_out_and_kept_on_disk(good: Path, name: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(good / name)
    content = (good / name).read_bytes()
    (good / name).write_bytes(content[: int(len(content) * keep)])
    folder = ImageFolder.scan(good)
    assert names(folder) == ["good.png"]
    left_out(folder, name)
    assert (good / name).exists()


def test_text_with_the_ending_of_a_picture_is_left_out(good: Path) -> None:
    (good / "bad.jpg").write_text("<html>404</html>")
    left_out(ImageFolder.scan(good), "bad.jpg")


def test_a_decompression_bomb_is_left_out_without_decoding(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(good / "bad.png", (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_999)
    assert "million pixels" in left_out(ImageFolder.scan(good), "bad.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_000)
    assert "million pixels" in left_out(ImageFolder.scan(good), "bad.png")


def test_one_pixel_is_left_out(good: Path) -> None:
    picture(good / "bad.png", (1, 1))
    assert "1x1" in left_out(ImageFolder.scan(good), "bad.png")


def test_other_files_and_folders_are_named_and_hidden_ones_are_not(good: Path) -> None:
    for name in ("notes.pdf", "Thumbs.db", "lonely.txt", ".DS_Store", "._good.png"):
        (good / name).write_bytes(b"x")
    picture(good / "other-masklabel.png")
    picture(good / "inner" / "a.png")
    folder = ImageFolder.scan(good)
    assert names(folder) == ["good.png"]
    for name in ("notes.pdf", "Thumbs.db", "lonely.txt", "other-masklabel.png", "inner"):
        left_out(folder, name)
    assert not any("DS_Store" in line or "._good" in line for line in folder.warnings)


def test_captions_beside_the_picture_come_before_metadata(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        picture(tmp_path / name)
    (tmp_path / "a.txt").write_text("a <TOK> dog\n on grass ", encoding="utf-8-sig")
    (tmp_path / "b.caption").write_text("ein Hund auf Höhe", encoding="utf-8")
    rows = [{"file_name": name, "text": f"from metadata {name}"} for name in ("a.png", "c.png", "gone.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    folder = ImageFolder.scan(tmp_path)
    texts = [photo.caption for photo in folder.photos]
    assert texts == ["a <TOK> dog on grass", "ein Hund auf Höhe", "from metadata c.png", None]
    assert "not there" in left_out(folder, "gone.png")
    assert "a.txt has its caption" in left_out(folder, "says of a.png")
    assert len(folder.warnings) == 2


def test_an_empty_caption_is_reported(good: Path) -> None:
    (good / "good.txt").write_text(" \n")
    folder = ImageFolder.scan(good)
    assert folder.photos[0].caption is None
    assert "empty" in left_out(folder, "good.txt")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("good.txt", "café".encode("latin-1"), "UTF-8"),
        ("metadata.jsonl", "é".encode("latin-1"), "UTF-8"),
        ("metadata.jsonl", b'{"file_name": "good.png"', "line 1"),
        ("metadata.jsonl", b'\n{"file_name": "good.png"}', "line 2"),
        ("metadata.jsonl", b'["good.png"]', "line 1"),
    ],
)
def test_a_caption_that_cannot_be_read_is_one_line(good: Path, name: str, content: bytes, words: str) -> None:
    (good / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        ImageFolder.scan(good)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "word", "repeats"), [("10_rex dog", "dog", 10), ("3_dog", "dog", 3), ("2_rex toy car", "toy car", 2)]
)
def test_kohya_prefix_means_repeats_and_class(tmp_path: Path, name: str, word: str, repeats: int) -> None:
    picture(tmp_path / name / "a.png")
    for path in (tmp_path / name, tmp_path):
        folder = ImageFolder.scan(path)
        assert folder.class_word == word
        assert [photo.repeats for photo in folder.photos] == [repeats]


def test_several_kohya_folders_are_one_set(tmp_path: Path) -> None:
    picture(tmp_path / "1_rex dog" / "a.png")
    picture(tmp_path / "5_rex dog" / "b.png")
    folder = ImageFolder.scan(tmp_path)
    assert [(photo.path.name, photo.repeats) for photo in folder.photos] == [("a.png", 1), ("b.png", 5)]


def test_mask_beside_the_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", (40, 20))
    picture(tmp_path / "b.jpg", (40, 20))
    mask = Image.new("L", (80, 40), 0)
    mask.paste(255, (0, 0, 40, 40))
    mask.save(tmp_path / "a-masklabel.png")
    folder = ImageFolder.scan(tmp_path)
    assert names(folder) == ["a.jpg", "b.jpg"]
    got = np.asarray(folder.read_mask(folder.photos[0]))
    assert got.shape == (20, 40)
    assert got[:, :18].min() == 255
    assert got[:, 22:].max() == 0
    assert folder.read_mask(folder.photos[1]) is None
    assert folder.warnings == ()


@pytest.mark.parametrize("inner", ["image", "images"])
def test_mix_of_show_siblings(tmp_path: Path, inner: str) -> None:
    picture(tmp_path / inner / "a.jpg")
    picture(tmp_path / "mask" / "a.png", colour=255, mode="L")
    (tmp_path / "caption").mkdir()
    (tmp_path / "caption" / "a.txt").write_text("a <TOK>")
    for path in (tmp_path, tmp_path / inner):
        (photo,) = ImageFolder.scan(path).photos
        assert photo.caption == "a <TOK>"
        assert photo.mask == tmp_path / "mask" / "a.png"


@pytest.mark.parametrize(("size", "colour", "words"), [((30, 40), 255, "30x40"), ((40, 30), 0, "black")])
def test_a_mask_that_cannot_be_used_is_an_error(good: Path, size: tuple[int, int], colour: int, words: str) -> None:
    picture(good / "good-masklabel.png", size, colour, "L")
    with pytest.raises(InputError, match=words):
        ImageFolder.scan(good)


def test_an_empty_folder_a_file_and_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, words in (("empty", "empty"), ("file", "is a file"), ("none", "does not exist")):
        with pytest.raises(InputError, match=words):
            ImageFolder.scan(tmp_path / name)


def test_a_folder_of_folders_names_one_to_give(tmp_path: Path) -> None:
    picture(tmp_path / "rex" / "a.png")
    picture(tmp_path / "tom" / "a.png")
    with pytest.raises(InputError, match="rex"):
        ImageFolder.scan(tmp_path)


def test_no_usable_picture_names_the_files(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(InputError, match=r"a\.jpg.*and 1 more"):
        ImageFolder.scan(tmp_path)


def test_small_pictures_and_a_single_one_are_warned_of(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (100, 300))
    folder = ImageFolder.scan(tmp_path)
    assert "only picture" in left_out(folder, "a.png")
    (line,) = folder.size_warnings(512)
    assert "a.png" in line
    assert not folder.size_warnings(256)


def test_pictures_that_teach_one_thing_or_nothing_are_refused(tmp_path: Path) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    noise.save(tmp_path / "a.png")
    ImageFolder.scan(tmp_path).check_variety()
    noise.save(tmp_path / "b.webp", lossless=True)
    with pytest.raises(InputError, match="all 2 pictures"):
        ImageFolder.scan(tmp_path).check_variety()
    noise.rotate(90).save(tmp_path / "c.png")
    ImageFolder.scan(tmp_path).check_variety()
    for name in ("a.png", "b.webp", "c.png"):
        Image.new("RGB", (64, 64), "black").save(tmp_path / name)
    with pytest.raises(InputError, match="nothing to learn"):
        ImageFolder.scan(tmp_path).check_variety()


def test_an_unknown_background_is_an_error(good: Path) -> None:
    with pytest.raises(InputError, match="reddish"):
        ImageFolder.scan(good, background="reddish")


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not on this machine")
def test_real_photographs() -> None:
    for subject in ("dog6", "cat2", "rc_car"):
        folder = ImageFolder.scan(PHOTOS / subject)
        assert len(folder.photos) == 5
        assert folder.warnings == ()
        assert folder.size_warnings(512) == []


def test_the_folder_is_only_read(good: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (good / "broken.jpg").write_bytes(b"x")
    (good / "good.txt").write_text("a <TOK>")
    before = {file.name: file.read_bytes() for file in good.iterdir()}
    copy = shutil.copytree(good, tmp_path_factory.mktemp("copy") / "folder")
    good.chmod(0o555)
    try:
        assert names(ImageFolder.scan(good)) == names(ImageFolder.scan(copy))
    finally:
        good.chmod(0o755)
    assert {file.name: file.read_bytes() for file in good.iterdir()} == before
