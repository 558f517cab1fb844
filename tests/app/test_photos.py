"""Pictures that visitors send or name: bounded, copied, and named by us."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spectral_fusion.errors import InputError
from spectral_fusion_app.settings import Limits
from spectral_fusion_app.train.photos import Photos
from training import draw_photos

Upload = Callable[..., Photos]


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    return draw_photos(tmp_path / "sent")


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    def run(*files: Path, **limits: int) -> Photos:
        folder = tmp_path / "copies"
        folder.mkdir()
        return Photos.upload(folder, files, Limits(**limits))

    return run


def test_uploads_become_cards_with_the_users_names(sent: Path, upload: Upload) -> None:
    (sent / "1.txt").write_text("a <TOK> dog\non grass", encoding="utf-8")
    cards, others = upload(*sent.iterdir()).cards(resolution=64)
    assert sorted((card.name, card.caption) for card in cards) == [
        ("0.png", ""),
        ("1.png", "a <TOK> dog on grass"),
        ("2.png", ""),
    ]
    assert others == []


def test_names_never_become_paths(sent: Path, upload: Upload, tmp_path: Path) -> None:
    odd = ["..png", "'; rm -rf *.png", "<img src=x onerror=alert(1)>.png", "con.png", ".hidden.png", "-rf.png"]
    files = [sent / name for name in odd]
    for file in files:
        file.write_bytes((sent / "0.png").read_bytes())
    photos = upload(*files)
    assert all(path.stem.isdigit() for path in photos.folder.iterdir())
    assert {card.name for card in photos.cards(64)[0]} == set(odd)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copies", "sent"]


def test_the_same_name_twice_is_two_pictures(sent: Path, upload: Upload, tmp_path: Path) -> None:
    other = tmp_path / "0.png"
    other.write_bytes((sent / "1.png").read_bytes())
    cards, _ = upload(sent / "0.png", other).cards(64)
    assert [card.name for card in cards] == ["0.png", "0.png"]


def test_masks_stay_with_their_picture(sent: Path, upload: Upload) -> None:
    mask = sent / "2-masklabel.png"
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(mask)
    photos = upload(mask, sent / "0.png", sent / "2.png")
    assert {path.name for path in photos.folder.iterdir()} == {"001-masklabel.png", "001.png", "002.png"}
    assert len(photos.cards(64)[0]) == 2


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"uploads": 2}, "more than the 2"), ({"upload_bytes": 100}, "MB"), ({"pixels": 100}, "40x40")],
)
def test_count_bytes_and_pixels_are_bounded(sent: Path, upload: Upload, limits: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        upload(*sent.iterdir(), **limits)


def test_what_cannot_be_used_is_named_as_the_user_calls_it(sent: Path, upload: Upload, tmp_path: Path) -> None:
    broken, stranger = sent / "broken.png", sent / "notes.pkl"
    broken.write_bytes((sent / "0.png").read_bytes()[:100])
    stranger.write_bytes(b"\x80\x04.")
    cards, others = upload(sent / "0.png", sent / "1.png", broken, stranger).cards(resolution=1000)
    assert [len(card.warnings) for card in cards] == [1, 1], "40 px are few for 1000"
    assert len(others) == 2
    assert any("broken.png" in text for text in others)
    assert any("notes.pkl" in text for text in others)
    assert str(tmp_path) not in " ".join(others)


def test_nothing_usable_is_an_error(sent: Path, upload: Upload) -> None:
    with pytest.raises(InputError, match="no pictures"):
        Photos.upload(sent, [], Limits())
    (sent / "text.png").write_text("no picture", encoding="utf-8")
    with pytest.raises(InputError, match=r"text\.png"):
        upload(sent / "text.png").cards(64)


def test_captions_are_written_beside_the_copies_only(sent: Path, tmp_path: Path) -> None:
    (sent / "0.caption").write_text("old", encoding="utf-8")
    folder = tmp_path / "copies"
    folder.mkdir()
    photos = Photos.from_server(folder, str(sent), [tmp_path], Limits())
    photos.write_captions({"0.png": "a <b>new</b>\ncaption", "1.png": " "})
    assert [card.caption for card in photos.cards(64)[0]] == ["a <b>new</b> caption", "", ""]
    assert (sent / "0.caption").read_text(encoding="utf-8") == "old"
    for key in ("../sent/0.png", str(sent / "0.png"), "9.png"):
        with pytest.raises(InputError, match="caption"):
            photos.write_captions({key: "x"})


def test_a_server_folder_keeps_its_layout(sent: Path, tmp_path: Path) -> None:
    sent.rename(tmp_path / "10_rex dog")
    (tmp_path / "all").mkdir()
    (tmp_path / "10_rex dog").rename(tmp_path / "all" / "10_rex dog")
    copies = tmp_path / "copies"
    copies.mkdir()
    cards, _ = Photos.from_server(copies, "all", [tmp_path], Limits()).cards(64)
    assert [card.key for card in cards] == [f"10_rex dog/{i}.png" for i in range(3)]


def test_a_server_folder_outside_the_roots_is_refused_and_so_are_links_out(sent: Path, tmp_path: Path) -> None:
    root, copies = tmp_path / "root", tmp_path / "copies"
    copies.mkdir()
    (root / "dog").mkdir(parents=True)
    (root / "link").symlink_to(sent)
    (root / "dog" / "0.png").write_bytes((sent / "0.png").read_bytes())
    (tmp_path / "secret").write_text("password", encoding="utf-8")
    for path in (str(sent), "../sent", str(root / ".." / "sent"), str(root / "link"), "/etc", ""):
        with pytest.raises(InputError, match="not in a folder"):
            Photos.from_server(copies, path, [root], Limits())
    (root / "dog" / "0.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="not in a folder"):
        Photos.from_server(copies, str(root / "dog"), [root], Limits())
    assert list(copies.iterdir()) == []


def test_the_endings_are_those_that_a_training_reads() -> None:
    from spectral_fusion.concept.images import captions, picture
    from spectral_fusion_app.train import photos

    assert (*picture.ENDINGS, *picture.HEIF) == photos.PICTURES
    assert photos.CAPTIONS == captions.ENDINGS


def test_side_files_of_other_tools_are_no_photos_and_captions_find_their_picture(sent: Path, upload: Upload) -> None:
    for name in ("0-condlabel.png", "0-masklabel1.png", "1_mask.png", "2.depth.png"):
        (sent / name).write_bytes((sent / "0.png").read_bytes())
    (sent / "0.png").rename(sent / "Cafe\u0301.png")
    (sent / "CAF\u00c9.txt").write_text("a <TOK> dog", encoding="utf-8")
    cards, others = upload(*sorted(sent.iterdir())).cards(64)
    assert sorted((card.name, card.caption) for card in cards) == [
        ("1.png", ""), ("2.png", ""), ("Cafe\u0301.png", "a <TOK> dog")
    ]  # fmt: skip
    assert sorted(line.split()[2] for line in others) == [
        "0-condlabel.png", "0-masklabel1.png", "1_mask.png", "2.depth.png"
    ]  # fmt: skip


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,text\n0.png,a red dog\n./gone.png,x\n"),
        ("metadata.jsonl", '{"file_name": "0.png", "text": "a red dog"}\n{"file_name": "gone.png", "text": "x"}'),
    ],
)
def test_a_table_of_captions_comes_along(
    sent: Path, upload: Upload, tmp_path: Path, server: bool, name: str, text: str
) -> None:
    (sent / name).write_text(text, encoding="utf-8")
    if server:
        (tmp_path / "copies").mkdir()
        photos = Photos.from_server(tmp_path / "copies", str(sent), [tmp_path], Limits())
    else:
        photos = upload(*sorted(sent.iterdir(), reverse=True))
    cards, others = photos.cards(64)
    assert sorted((card.name, card.caption) for card in cards) == [("0.png", "a red dog"), ("1.png", ""), ("2.png", "")]
    assert len(others) == 1
    assert "gone.png, which is not there" in others[0]
    photos.write_captions({card.key: "" for card in cards})
    assert [card.caption for card in photos.cards(64)[0]] == [""] * 3, "a caption that was taken away stays away"
