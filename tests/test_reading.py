"""The doors for pictures, JSON and text: anything at all is read, or refused in one line."""

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spectral_fusion.errors import InputError, printable
from spectral_fusion.reading import decode_text, load_picture, open_tensors, parse_json, read_header

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "avif": "AVIF", "tif": "TIFF"}


def noise(size: tuple[int, int] = (32, 24)) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(0).randbytes(size[0] * size[1] * 3))


@pytest.mark.parametrize(("kind", "words"), [("EPS", "PostScript"), ("GIF", "GIF"), ("DDS", "DDS"), ("PPM", "cannot")])
def test_formats_that_nobody_asked_for_are_never_opened(
    tmp_path: Path, kind: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    noise().save(path, kind)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("Ghostscript was started"))
    for read in (load_picture, read_header):
        with pytest.raises(InputError, match=f"not a readable picture .*{words}"):
            read(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_broken_pictures_are_one_line_wherever_they_break(tmp_path: Path, ending: str) -> None:
    rng, path = random.Random(1), tmp_path / f"a.{ending}"
    noise().save(path, FORMATS[ending])
    whole = path.read_bytes()
    for _ in range(150):
        data = bytearray(whole[: rng.randint(0, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randint(1, 6)):
            if data:
                data[rng.randrange(len(data))] = rng.choice((0, 1, 255, rng.randrange(256)))
        path.write_bytes(data)
        for read in (load_picture, read_header):
            with suppress(InputError):
                read(path)


@pytest.mark.parametrize("ending", ["tif", "webp", "png", "avif"])
def test_several_frames_are_refused(tmp_path: Path, ending: str) -> None:
    frames = [noise(), noise().rotate(90)]
    frames[0].save(tmp_path / f"a.{ending}", FORMATS[ending], save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="animated"):
        load_picture(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "x"]}, [], "text", 0, {"k": {"l": ["m"]}}])
def test_json_that_is_fine(value: Any) -> None:
    assert parse_json(json.dumps(value), "it") == value


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 10**5, "1e999", "-Infinity", "NaN", "9" * 10**4, '"\\udfff"', '{"\\ud800": 1}', "\x00"]
)
def test_json_that_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^it "):
        parse_json(text, "it")


def test_text_is_in_one_form() -> None:
    assert decode_text("e\u0301\r\nb\rc".encode(), "it") == "\u00e9\nb\nc"


@pytest.mark.parametrize("data", [b"\x00", b"a\x00b", b"\xff\xfe\x00\xd8", b"\x80abc", b"\x1b[31m", b"\xfe\xff\x00"])
def test_bytes_that_are_no_text(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^it "):
        decode_text(data, "it")


def test_messages_are_one_line_and_bounded() -> None:
    assert str(InputError("a\nb\x1b\u202e\ud800ä")) == "a\\nb\\x1b\\u202e\\ud800ä"
    assert len(str(InputError("x" * 10**6))) < 5000
    assert printable("ein Hund 🐕") == "ein Hund 🐕"


def test_a_tensor_file_that_goes_away_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2)}, path)

    def gone(*_: object, **__: object) -> None:
        path.unlink()
        raise RuntimeError("unable to open file in read-only mode: No such file or directory (2)")

    monkeypatch.setattr("spectral_fusion.reading.tensors.safe_open", gone)
    with pytest.raises(InputError, match="cannot be read"), open_tensors(path):
        pass
