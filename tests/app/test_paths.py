"""Which files a visitor may name."""

from pathlib import Path

import pytest

from spectral_fusion.errors import InputError
from spectral_fusion_app.messages import field_of, shown
from spectral_fusion_app.paths import hide, inside


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's folder with two roots, a secret beside them, and links out of a root and within it."""
    for name in ("photos/rex", "models", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret" / "key").write_text("1234")
    (tmp_path / "photos" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "photos" / "in").symlink_to(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_path_in_a_root_however_it_is_written(place: Path) -> None:
    roots = [Path("photos"), place / "models"]
    for text in ("photos/rex", "rex", "./rex", str(place / "photos" / "rex"), " rex "):
        assert inside(roots, text) == place / "photos" / "rex"
    assert inside(roots, "photos/in") == place / "models"


def test_a_new_file_goes_where_it_is_named_from(place: Path) -> None:
    assert inside([Path("photos")], "photos/new.safetensors") == place / "photos" / "new.safetensors"
    assert inside([Path("photos")], "new.safetensors") == place / "photos" / "new.safetensors"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "..",
        "../secret",
        "photos/../secret/key",
        "rex/../../secret/key",
        "out/key",
        "/etc/passwd",
        "rex\0/key",
        "x" * 5000,
        "\\\\host\\share/../..",
    ],
)
def test_what_leads_out_is_refused(place: Path, text: str) -> None:
    with pytest.raises(InputError, match="may use"):
        inside([Path("photos")], text)


def test_a_link_that_leaves_a_root_is_refused(place: Path) -> None:
    for path in (place / "photos" / "out", place / "photos" / "out" / "key"):
        with pytest.raises(InputError, match="may use"):
            inside([Path("photos")], path)


def test_a_name_is_never_more_than_a_name(place: Path) -> None:
    for text in ("secret/key", "~/.ssh/id_rsa", "$HOME"):
        assert inside([Path("photos")], text) == place / "photos" / text


def test_the_message_does_not_tell_whether_the_file_exists(place: Path) -> None:
    messages = []
    for name in ("key", "kex"):
        with pytest.raises(InputError) as caught:
            inside([Path("photos")], place / "secret" / name)
        messages.append(str(caught.value).replace(name, ""))
    assert messages[0] == messages[1]


def test_without_roots_nothing_is_allowed(place: Path) -> None:
    with pytest.raises(InputError, match="are none"):
        inside([], "photos")


def test_visitors_are_not_told_where_folders_of_the_server_lie(place: Path) -> None:
    hide([place / "photos", Path("models")])
    broken = f"{place}/photos/rex/1.png cannot be read"
    answer = {"error": broken, "state": {"message": broken}, "jobs": [{"error": broken}], "url": f"file={place}/x.png"}
    told = shown(answer)
    assert told["error"] == told["state"]["message"] == told["jobs"][0]["error"] == "photos/rex/1.png cannot be read"
    assert told["url"] == answer["url"], "a picture is still found"


def test_a_message_speaks_of_fields_and_not_of_flags_and_variables() -> None:
    told = {
        "class_word is empty; give --class dog": ("class", "the kind is empty; write it, such as dog"),
        "num_inference_steps is -3; give more": ("steps", "steps is -3; give more"),
        "batch_size is -1; give more": ("batch_size", "batch size is -1; give more"),
        "<rex> belongs to 'rex'": ("", "<rex> belongs to 'rex'"),
    }
    for message, (field, words) in told.items():
        assert (field_of(message), shown({"error": message})["error"]) == (field, words)
