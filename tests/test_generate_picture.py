"""Pictures carry their settings, in the format that other tools read."""

import random
import string
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from spectral_fusion.errors import InputError
from spectral_fusion.picture import Parameters, contact_sheet, format_weights, read_parameters, save_picture

SETTINGS = {"Steps": "20", "Sampler": "DPM++ 2M", "CFG scale": "7", "Seed": "965400086", "Size": "512x512"}
EXAMPLE = """a photo of a <rex> dog
Negative prompt: ugly, blurry
Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 965400086, Size: 512x512, Model: "a: b", Version: 1"""


def picture() -> Image.Image:
    return Image.new("RGB", (16, 16), "red")


def test_the_text_is_the_one_that_users_know() -> None:
    parameters = Parameters("a photo of a <rex> dog", "ugly, blurry", {**SETTINGS, "Model": "a: b", "Version": "1"})
    assert str(parameters) == EXAMPLE
    assert Parameters.parse(EXAMPLE) == parameters


def test_text_of_other_tools() -> None:
    assert Parameters.parse("just a prompt") == Parameters("just a prompt")
    several = Parameters.parse('one\ntwo\nNegative prompt: bad\nworse\nSteps: 5, Hires upscale: 2, TI hashes: "a: 1"')
    assert several == Parameters("one\ntwo", "bad\nworse", {"Steps": "5", "Hires upscale": "2", "TI hashes": "a: 1"})


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".JPEG"])
def test_round_trip_through_every_format(tmp_path: Path, ending: str) -> None:
    parameters = Parameters("ein Zürcher Hund, 東京 🐕", "häßlich", {**SETTINGS, "Note": 'a "b", c: d\n e'})
    path = save_picture(picture(), tmp_path / f"x{ending}", parameters)
    assert read_parameters(path) == parameters
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_round_trip_of_random_values() -> None:
    rng = random.Random(0)
    for _ in range(500):
        values = ["".join(rng.choices(string.printable + 'äß"\\,:', k=rng.randint(1, 12))) for _ in range(4)]
        parameters = Parameters("p", "n", {"Steps": "1", **{f"Key {i}": value for i, value in enumerate(values)}})
        assert Parameters.parse(str(parameters)) == parameters


def test_png_uses_the_key_parameters_and_jpeg_the_user_comment(tmp_path: Path) -> None:
    save_picture(picture(), tmp_path / "x.png", EXAMPLE)
    save_picture(picture(), tmp_path / "x.jpg", EXAMPLE)
    with Image.open(tmp_path / "x.png") as image:
        assert image.info["parameters"] == EXAMPLE
    with Image.open(tmp_path / "x.jpg") as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment == b"UNICODE\0" + EXAMPLE.encode("utf-16-be")


@pytest.mark.parametrize("comment", [b"UNICODE\0" + EXAMPLE.encode("utf-16-le"), b"ASCII\0\0\0" + EXAMPLE.encode()])
def test_comments_in_the_other_codes_that_tools_write(tmp_path: Path, comment: bytes) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    picture().save(tmp_path / "x.jpg", exif=exif)
    assert read_parameters(tmp_path / "x.jpg").prompt == "a photo of a <rex> dog"


def test_pictures_that_do_not_say(tmp_path: Path) -> None:
    picture().save(tmp_path / "plain.png")
    with pytest.raises(InputError, match="does not say"):
        read_parameters(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="not a readable picture"):
        read_parameters(tmp_path / "text.png")
    with pytest.raises(InputError, match="not a readable picture"):
        read_parameters(tmp_path / "missing.png")
    with pytest.raises(InputError, match="ending"):
        save_picture(picture(), tmp_path / "x.tiff", EXAMPLE)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_picture(picture(), tmp_path / "x.png", EXAMPLE)
    before = path.read_bytes()

    def fill(self: Image.Image, file: Path, *args: object, **kwargs: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill)
    with pytest.raises(OSError, match="No space"):
        save_picture(picture(), path, EXAMPLE)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]


def test_contact_sheet_holds_every_picture() -> None:
    rows = [[Image.new("RGB", (8, 8), color) for color in row] for row in (["red", "blue"], ["lime", "black"])]
    sheet = contact_sheet(rows, ["one", "two"], ["a", "b"])
    colors = {color for _, color in sheet.getcolors(2**16) or []}
    assert {(255, 0, 0), (0, 0, 255), (0, 255, 0), (0, 0, 0)} <= colors


@pytest.mark.parametrize("label", ["seed 2808975892", "sampler DPM++ 2M Karras"])
def test_labels_of_a_sheet_of_small_pictures_are_whole_and_do_not_run_into_one_another(label: str) -> None:
    def ink(rows: int, columns: int) -> int:
        pictures = [[Image.new("RGB", (64, 64), "white")] * columns] * rows
        sheet = contact_sheet(pictures, [label] * rows, [label] * columns)
        return sum(value < 128 for value in sheet.convert("L").tobytes())

    one = ink(1, 1)
    assert one > 100
    assert ink(1, 3) == 2 * one
    assert ink(3, 1) == 2 * one


def test_weights_of_concepts_are_recorded_and_read_back() -> None:
    weights = {"rex": 1.0, "tom-2": -0.25}
    text = str(Parameters("a dog", settings={"Steps": "2", "Concepts": format_weights(weights)}))
    assert Parameters.parse(text).weights == weights
    assert Parameters("a dog").weights == {}
    with pytest.raises(InputError, match="by hand"):
        _ = Parameters("a dog", settings={"Concepts": "rex: heavy"}).weights
