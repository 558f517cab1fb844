"""Folders as users of other trainers lay them out: read as their owner means, or said."""

import csv
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from spectral_fusion.concept.images import ImageFolder, find_pictures
from spectral_fusion.errors import InputError
from test_images import left_out, names, picture
from training import draw_photos


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as JSON lines or CSV, by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("column", ["text", "caption", "prompt"])
@pytest.mark.parametrize("prefix", ["images/", "./images/", "images\\"])
def test_a_table_above_the_pictures_is_read_with_its_paths(
    tmp_path: Path, ending: str, column: str, prefix: str
) -> None:
    picture(tmp_path / "images" / "0.png")
    rows = [{"file_name": f"{prefix}0.png", "width": "40", column: "a <TOK> dog, sitting"}]
    table(tmp_path / f"metadata.{ending}", rows)
    for path in (tmp_path, tmp_path / "images"):
        folder = ImageFolder.scan(path)
        assert folder.photos[0].caption == "a <TOK> dog, sitting"
        assert not any("metadata" in line for line in folder.warnings)


def test_a_table_that_names_none_of_the_pictures_is_named_itself(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    table(tmp_path / "metadata.jsonl", [{"file_name": "elsewhere/a.png", "text": "a dog"}])
    warnings = "\n".join(ImageFolder.scan(tmp_path).warnings)
    assert "metadata.jsonl is not used" in warnings
    assert "elsewhere/a.png, which is not there" in warnings


def test_two_tables_are_one_too_many(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name in ("metadata.csv", "metadata.jsonl"):
        table(tmp_path / name, [{"file_name": "a.png", "text": "a dog"}])
    with pytest.raises(InputError, match="only one can be read"):
        ImageFolder.scan(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"file_name": "a.png", "description": "a dog"}', "found: 'file_name, description'"),
        ('{"file_name": "a.png", "text": ' + "[" * 5000 + "]" * 5000 + "}", "nested deeper"),
        ('{"file_name": "a.png", "text": "a", "n": ' + "9" * 5000 + "}", "digits"),
        ('{"file_name": "a.png", "text": "' + "x" * 70_000 + '"}', "70000 characters"),
        ('{"file_name": "\\ud800.png", "text": "a"}', "surrogate"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text("\n" + content)
    with pytest.raises(InputError, match=words) as caught:
        ImageFolder.scan(tmp_path)
    assert "line 2" in str(caught.value)


def test_numbered_folders_of_two_subjects_are_refused_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "10_rex dog" / "a.png")
    picture(tmp_path / "5_tom cat" / "b.png")
    with pytest.raises(InputError, match=r"'10_rex dog', '5_tom cat'.*--class"):
        ImageFolder.scan(tmp_path)
    assert names(ImageFolder.scan(tmp_path, class_word="animal")) == ["a.png", "b.png"]


def test_an_empty_numbered_folder_is_no_subject(tmp_path: Path) -> None:
    picture(tmp_path / "10_rex dog" / "a.png")
    (tmp_path / "5_tom cat").mkdir()
    folder = ImageFolder.scan(tmp_path)
    assert folder.class_word == "dog"
    left_out(folder, "5_tom cat")


def test_numbered_folders_come_before_a_stray_picture_beside_them(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "10_rex dog" / name)
    picture(tmp_path / "contact.png")
    folder = ImageFolder.scan(tmp_path)
    assert names(folder) == ["a.png", "b.png"]
    assert "read from 10_rex dog" in left_out(folder, "contact.png")


def test_many_pictures_beside_a_folder_that_looks_numbered_are_not_dropped(tmp_path: Path) -> None:
    picture(tmp_path / "2019_summer" / "a.png")
    for number in range(3):
        picture(tmp_path / f"{number}.png")
    with pytest.raises(InputError, match="2019_summer"):
        ImageFolder.scan(tmp_path)


@pytest.mark.parametrize(
    "name", ["a-masklabel1.png", "a-condlabel.png", "b-masklabel.png", "a_mask.png", "a.depth.png", "a-canny.png"]
)
def test_side_files_of_other_tools_are_no_photos(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / name)
    folder = ImageFolder.scan(tmp_path)
    assert names(folder) == ["a.png"]
    assert "another tool" in left_out(folder, name)
    assert find_pictures(tmp_path) == [tmp_path / "a.png"]


def test_a_photo_whose_name_only_sounds_like_a_side_file_is_one(tmp_path: Path) -> None:
    picture(tmp_path / "carnival_mask.png")
    picture(tmp_path / "in-control.png")
    assert len(ImageFolder.scan(tmp_path).photos) == 2


def test_numbered_folders_are_found_by_name_alone(tmp_path: Path) -> None:
    picture(tmp_path / "1_dog" / "a.png")
    (tmp_path / "1_dog" / "a.txt").write_text("a dog")
    assert find_pictures(tmp_path) == [tmp_path / "1_dog" / "a.png"]
    (tmp_path / "empty").mkdir()
    assert find_pictures(tmp_path / "empty") == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_captions_in_every_encoding_that_says_what_it_is(tmp_path: Path, encoding: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("ein Hund auf einer Wiese\r\n, groß".encode(encoding))
    assert ImageFolder.scan(tmp_path).photos[0].caption == "ein Hund auf einer Wiese , groß"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["a photo of a dog", "фото собаки", "ein Hündchen"])
def test_utf16_without_a_mark_is_named(tmp_path: Path, encoding: str, text: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=rf"a\.txt is.* {encoding.upper()} without a byte order mark"):
        ImageFolder.scan(tmp_path)


def test_a_caption_has_at_most_64_kilobytes_and_is_not_read_further(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(InputError, match="larger than 64 KiB"):
        ImageFolder.scan(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "b.png")
    assert names(ImageFolder.scan(tmp_path)) == ["a.png"]


@pytest.mark.parametrize("form", ["[trigger]", "<TOK>", "{trigger}", "TOK", "[name]", "<embedding>", "[V]"])
def test_placeholders_of_other_trainers_are_the_trigger(tmp_path: Path, form: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(f"{form}, a photo of {form} at TOKYO")
    assert ImageFolder.scan(tmp_path).photos[0].caption == "<TOK>, a photo of <TOK> at TOKYO"


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.tif", "a.TIFF"])
def test_other_endings_that_are_read(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / name, "TIFF" if "tif" in name.lower() else "JPEG")
    assert names(ImageFolder.scan(tmp_path)) == [name]


def test_heic_names_the_extra_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    picture(tmp_path / "a.png")
    (tmp_path / "b.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert "spectral-fusion[heif]" in left_out(ImageFolder.scan(tmp_path), "b.HEIC")


@pytest.mark.parametrize(("size", "kept"), [((4000, 120), "6 %"), ((1080, 2400), "90 %")])
def test_what_is_kept_of_an_extreme_shape_is_said(tmp_path: Path, size: tuple[int, int], kept: str) -> None:
    picture(tmp_path / "a.png", size)
    picture(tmp_path / "b.png", (300, 200))
    (line,) = ImageFolder.scan(tmp_path).shape_warnings()
    assert "a.png" in line
    assert kept in line
    assert len(ImageFolder.scan(tmp_path).shape_warnings(aspect_buckets=False)) == 2


def test_captions_are_found_whatever_unicode_form_or_case_their_name_is_in(tmp_path: Path) -> None:
    picture(tmp_path / "caf\u00e9.png")
    (tmp_path / "cafe\u0301.txt").write_text("composed and decomposed")
    picture(tmp_path / "IMG_1.JPG")
    (tmp_path / "img_1.TXT").write_text("upper and lower")
    captions = {photo.caption for photo in ImageFolder.scan(tmp_path).photos}
    assert captions == {"composed and decomposed", "upper and lower"}


def test_the_longest_names_are_read(tmp_path: Path) -> None:
    picture(tmp_path / ("x" * 251 + ".png"))
    assert len(ImageFolder.scan(tmp_path).photos) == 1


def test_control_characters_of_names_are_shown_not_sent(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "\x1b[31mred\u202e.pdf").write_bytes(b"x")
    text = "\n".join(ImageFolder.scan(tmp_path).warnings)
    assert "\\x1b[31mred\\u202e.pdf" in text
    assert "\x1b" not in text


def test_captions_and_masks_that_no_picture_has_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "image" / "a.png")
    picture(tmp_path / "mask" / "gone.png", colour=255, mode="L")
    (tmp_path / "caption").mkdir()
    (tmp_path / "caption" / "gone.txt").write_text("x")
    (tmp_path / "notes.pdf").write_bytes(b"x")
    folder = ImageFolder.scan(tmp_path)
    for name in ("gone.png", "gone.txt", "notes.pdf"):
        left_out(folder, name)


def test_every_caption_that_is_not_used_is_named(tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "photos", count=3)
    (folder / "0.txt").write_text("a red dog")
    (folder / "0.caption").write_text("a green dog")
    rows = [{"file_name": "0.png", "text": "a blue dog"}, {"file_name": "1.png", "text": "a dog"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = ImageFolder.scan(folder)
    assert [photo.caption for photo in found.photos] == ["a red dog", "a dog", None]
    said = "\n".join(found.warnings)
    assert "0.caption, since 0.txt has the caption of 0.png" in said
    assert "metadata.jsonl says of 0.png, since 0.txt" in said
    assert len(found.warnings) == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.csv", "file_name,text\n0.png,a dog, on grass\n", "more values than there are columns"),
        ("metadata.csv", "file_name,text\n0.png,a dog\n./0.png,a cat\n", "again, with another caption"),
        ("metadata.jsonl", '{"file_name": "0.png", "text": "a"}\n{"file_name": "0.png", "text": "b"}', "again"),
    ],
)
def test_a_table_that_would_lose_a_text_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    folder = draw_photos(tmp_path / "photos", count=1)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=words):
        ImageFolder.scan(folder)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "photos", count=1)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "x" * 5000, "text": "a dog"}))
    assert "which is not there" in "".join(ImageFolder.scan(folder).warnings)
