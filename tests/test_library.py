"""The library: nothing is lost, nothing is given out twice, also by two processes at once."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from concepts import make_concept
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, Library
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band

BASE = "0123456789abcdef"


@pytest.fixture(scope="module")
def rex(shared_base: StableDiffusion) -> Concept:
    return make_concept(shared_base, targets=("to_q",))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "concepts")


def called(concept: Concept, name: str, band: int = 0, rank: int = 4, **changes: object) -> Concept:
    """The same concept under another name, in another band as far as its metadata go."""
    layers = {
        key: replace(layer, basis=type(layer.basis)(*(part[..., :rank] for part in layer.basis)))
        for key, layer in concept.layers.items()
    }
    layers = {
        key: replace(layer, trained={part: tensor[..., :rank] for part, tensor in layer.trained.items()})
        for key, layer in layers.items()
    }
    return replace(concept, name=name, trigger=f"<{name}>", band=Band(band, rank), layers=layers, **changes)


def test_where_the_library_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECTRAL_FUSION_LIBRARY", raising=False)
    assert Library().root == Path("concepts")
    monkeypatch.setenv("SPECTRAL_FUSION_LIBRARY", str(tmp_path / "mine"))
    assert Library().root == tmp_path / "mine"
    assert Library(tmp_path / "other").root == tmp_path / "other"
    assert Library().list() == []


def test_add_get_list(library: Library, rex: Concept, tmp_path: Path) -> None:
    file = called(rex, "tom", 1).save(tmp_path / "tom.safetensors", dtype=torch.float32)
    library.add(rex)
    library.add(file)
    assert [info.name for info in library.list()] == ["rex", "tom"]
    assert library.get("rex").trigger == "<rex>"
    assert library.path("tom").read_bytes() == file.read_bytes()


def test_adding_under_another_name_and_trigger(library: Library, rex: Concept, tmp_path: Path) -> None:
    file = rex.save(tmp_path / "rex.safetensors")
    library.add(file)
    library.add(file, name="rex2", trigger="<rex2>")
    assert [(info.name, info.trigger) for info in library.list()] == [("rex", "<rex>"), ("rex2", "<rex2>")]


def test_a_taken_name_needs_force_and_the_old_file_is_kept(library: Library, rex: Concept) -> None:
    library.add(rex)
    old = library.path("rex").read_bytes()
    (library.folder("rex") / "preview.png").write_bytes(b"picture")
    with pytest.raises(InputError, match="--force"):
        library.add(replace(rex, class_word="wolf"))
    assert library.path("rex").read_bytes() == old
    library.add(replace(rex, class_word="wolf"), force=True)
    assert library.info("rex").class_word == "wolf"
    assert (library.folder("rex") / "preview.png").read_bytes() == b"picture"
    library.remove("rex")
    kept = [path.read_bytes() for path in library.root.glob(".trash/rex@*/concept.safetensors")]
    assert old in kept


def test_removed_names_are_told_latest_first(library: Library, rex: Concept) -> None:
    for name in ("tom", "kit"):
        library.add(called(rex, name))
        library.remove(name)
    assert library.removed() == ("kit", "tom")
    library.restore("kit")
    assert library.removed() == ("tom",)


def test_remove_and_restore_keep_everything_of_the_folder(library: Library, rex: Concept) -> None:
    library.add(rex)
    (library.folder("rex") / "images").mkdir()
    (library.folder("rex") / "images" / "1.png").write_bytes(b"picture")
    gone = library.remove("rex")
    assert library.list() == []
    assert not library.folder("rex").exists()
    assert (gone / "images" / "1.png").read_bytes() == b"picture"
    library.restore("rex")
    assert [info.name for info in library.list()] == ["rex"]
    assert (library.folder("rex") / "images" / "1.png").read_bytes() == b"picture"
    with pytest.raises(InputError, match="in the trash"):
        library.restore("rex")


def test_the_last_of_several_removed_comes_back_first(library: Library, rex: Concept) -> None:
    for class_word in ("dog", "wolf"):
        library.add(replace(rex, class_word=class_word))
        library.remove("rex")
    assert library.restore("rex").class_word == "wolf"
    with pytest.raises(InputError, match="again; remove that one first"):
        library.restore("rex")
    library.remove("rex")
    library.add(called(rex, "tom"))
    library.rename("tom", "<rex>")
    with pytest.raises(InputError, match="belongs to concept 'tom'"):
        library.restore("rex")


def test_rename_changes_the_trigger_alone(library: Library, rex: Concept) -> None:
    library.add(rex)
    before = load_file(library.path("rex"))
    library.rename("rex", "<rexy>")
    assert library.get("rex").trigger == "<rexy>"
    after = load_file(library.path("rex"))
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)


def test_triggers_are_unique_and_well_formed(library: Library, rex: Concept) -> None:
    library.add(rex)
    tom = called(rex, "tom", 1)
    for trigger in ("<rex>", "<REX>"):
        with pytest.raises(InputError, match="belongs to concept 'rex'"):
            library.add(replace(tom, trigger=trigger))
    library.add(tom)
    with pytest.raises(InputError, match="belongs to concept 'rex'"):
        library.rename("tom", "<rex>")
    with pytest.raises(InputError, match="angle brackets"):
        library.rename("tom", "rex:1")
    assert library.get("tom").trigger == "<tom>"


def test_unknown_names_suggest_the_nearest(library: Library, rex: Concept) -> None:
    with pytest.raises(InputError, match="none yet"):
        library.get("rex")
    library.add(rex)
    for verb in (library.get, library.info, library.remove, library.find):
        with pytest.raises(InputError, match="did you mean 'rex'"):
            verb("rexx")
    for name in ("../rex", "", ".trash"):
        with pytest.raises(InputError, match="cannot name a concept"):
            library.get(name)


def test_a_broken_file_does_not_take_the_others_with_it(
    library: Library, rex: Concept, caplog: pytest.LogCaptureFixture
) -> None:
    library.add(rex)
    library.folder("bad").mkdir()
    library.path("bad").write_bytes(b"nonsense")
    assert [info.name for info in library.list()] == ["rex"]
    assert "bad" in caplog.text
    with pytest.raises(InputError, match="bad"):
        library.get("bad")


def test_the_next_free_band_fills_gaps_and_counts_by_base(library: Library, rex: Concept) -> None:
    assert library.next_free_band(rex.base, 4) == Band(0, 4)
    library.add(rex)
    library.add(called(rex, "bot", 2))
    assert library.next_free_band(rex.base, 4) == Band(1, 4)
    assert library.next_free_band(rex.base, 2) == Band(2, 2)
    assert library.next_free_band(rex.base, 8) == Band(2, 8)
    assert library.next_free_band(BASE, 4) == Band(0, 4)
    library.add(called(rex, "tom", 1))
    assert library.next_free_band(rex.base, 4) == Band(3, 4)
    library.remove("rex")
    assert library.next_free_band(rex.base, 4) == Band(0, 4)


def test_a_claim_counts_from_the_side_that_is_asked_for(library: Library, rex: Concept) -> None:
    library.add(called(rex, "bot", 7))  # the last four of 32, counted from the top
    low = {"side": "bottom", "directions": 32}
    assert library.claim("tom", "<tom>", rex.base, 4, **low) == Band(1, 4, "bottom")
    assert library.claim("kit", "<kit>", rex.base, 4, **low) == Band(2, 4, "bottom")
    assert library.claim("fin", "<fin>", rex.base, 4, directions=32) == Band(0, 4)
    assert library.claim("tom", "<tom>", rex.base, 4, **low) == Band(1, 4, "bottom")
    with pytest.raises(InputError, match=r"bottom band 7 at rank 4 overlaps that of 'fin'"):
        library.claim("dot", "<dot>", rex.base, 4, band=7, **low)
    with pytest.raises(InputError, match=r"overlaps that of 'bot' \(band 7 at rank 4\)"):
        library.claim("dot", "<dot>", rex.base, 4, band=0, **low)


def test_bands_of_both_sides_fill_a_base_and_never_meet(library: Library) -> None:
    sides = ["top", "bottom", "bottom", "top", "bottom"]
    for number, side in enumerate(sides):
        library.claim(f"c{number}", f"<c{number}>", BASE, 6, side=side, directions=33)
    with pytest.raises(InputError, match="room for 5, 5 concepts"):
        library.claim("more", "<more>", BASE, 6, side="top", directions=33)
    assert library.claim("wide", "<wide>", BASE, 6, side="top", directions=40) == Band(2, 6)


def test_a_claim_of_a_version_without_sides_counts_from_the_top(library: Library) -> None:
    library.folder("old").mkdir(parents=True)
    record = {"trigger": "<old>", "base": BASE, "band": 7, "rank": 4}
    (library.folder("old") / "claim.json").write_text(json.dumps(record))
    assert library.claim("tom", "<tom>", BASE, 4, side="bottom", directions=32) == Band(1, 4, "bottom")


def test_exhausted_bands_say_how_many_fit_and_what_to_do(library: Library, rex: Concept) -> None:
    for i in range(rex.capacity):
        library.add(called(rex, f"c{i}", i))
    with pytest.raises(InputError, match=r"room for 8, 8 concepts use it. Train at a lower --rank"):
        library.next_free_band(rex.base, 4)
    library.claim("wide", "<wide>", BASE, 12)
    with pytest.raises(InputError, match="room for 3"):
        library.next_free_band(BASE, 4, directions=15)
    with pytest.raises(InputError, match="rank 0"):
        library.next_free_band(BASE, 0)


def test_a_claim_holds_band_and_trigger_until_it_is_filled_or_released(library: Library, rex: Concept) -> None:
    assert library.claim("rex", "<rex>", rex.base, 4, directions=32) == Band(0, 4)
    assert library.next_free_band(rex.base, 4) == Band(1, 4)
    assert library.claim("rex", "<rex>", rex.base, 4, directions=32) == Band(0, 4)
    assert library.claim("tom", "<tom>", rex.base, 4, directions=32) == Band(1, 4)
    with pytest.raises(InputError, match="belongs to concept 'tom'"):
        library.claim("bot", "<tom>", rex.base, 4)
    with pytest.raises(InputError, match="overlaps that of 'rex'"):
        library.claim("bot", "<bot>", rex.base, 4, band=0)
    assert library.list() == []
    library.add(rex)
    assert not (library.folder("rex") / "claim.json").exists()
    library.release("tom")
    assert not library.folder("tom").exists()
    assert library.claim("bot", "<bot>", rex.base, 4) == Band(1, 4)
    library.remove("bot")
    assert library.next_free_band(rex.base, 4) == Band(1, 4)


def test_an_unreadable_claim_says_what_to_delete(library: Library) -> None:
    library.claim("rex", "<rex>", BASE, 4)
    (library.folder("rex") / "claim.json").write_text("{")
    with pytest.raises(InputError, match=r"claim\.json cannot be read"):
        library.next_free_band(BASE, 4)


WORKER = """
import sys
from spectral_fusion.concept import Library
library, worker = Library(sys.argv[1]), sys.argv[2]
for i in range(8):
    band = library.claim(f"w{worker}n{i}", f"<w{worker}n{i}>", "0123456789abcdef", 4, directions=64)
    print(band.index)
"""


def test_two_processes_never_get_one_band(library: Library) -> None:
    commands = [[sys.executable, "-c", WORKER, str(library.root), worker] for worker in "01"]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    bands = [int(line) for job in jobs for line in job.communicate()[0].split()]
    assert sorted(bands) == list(range(16))
    with pytest.raises(InputError, match="no free band"):
        library.next_free_band(BASE, 4, directions=64)
