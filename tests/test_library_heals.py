"""A library heals: what kills leave is finished or undone, one bad entry takes no other down, nothing is lost."""

import errno
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from concepts import make_concept
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, ConceptInfo, Library, holdings
from spectral_fusion.concept.check import Held, meetings
from spectral_fusion.concept.locks import training_lock
from spectral_fusion.errors import InputError, MissingError
from spectral_fusion.spectral import Band, Side
from test_library import called


@pytest.fixture(scope="module")
def rex(shared_base: StableDiffusion) -> Concept:
    return make_concept(shared_base, targets=("to_q",))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "concepts")


def names(library: Library) -> list[str]:
    return [info.name for info in library.list()]


def done(library: Library) -> list[str]:
    return [finding.done for finding in library.check()]


def test_leftovers_of_killed_verbs_are_no_concepts_and_go(library: Library, rex: Concept) -> None:
    library.add(rex)
    library.add(called(rex, "tom", 1))
    library.remove("tom")
    half = library.root / ".trash" / ".tom@20260101T000000.000000.abcdefgh.part"
    half.mkdir()
    others = [library.root / ".rex.abcdefgh.part", library.folder("rex") / ".concept.safetensors.abcdefgh.part"]
    for other in others:
        other.write_bytes(b"half")
    assert library.removed() == ("tom",)
    assert names(library) == ["rex"]
    assert not any(path.exists() for path in (half, *others))
    library.restore("tom")
    assert names(library) == ["rex", "tom"]


def test_what_a_killed_force_had_moved_away_comes_back(library: Library, rex: Concept) -> None:
    library.add(rex)
    library.folder("rex").rename(library.root / ".rex.abcdefgh.old")
    assert names(library) == ["rex"]


def test_restore_refuses_a_band_that_was_given_away(library: Library, rex: Concept) -> None:
    library.add(rex)
    library.remove("rex")
    library.add(called(rex, "nova", 0))
    with pytest.raises(InputError, match="given to 'nova'"):
        library.restore("rex")
    library.remove("nova")
    assert library.claim("bot", "<bot>", rex.base, 4, directions=32) == Band(0, 4)
    with pytest.raises(InputError, match="given to 'bot'"):
        library.restore("rex")
    library.release("bot")
    assert library.restore("rex").name == "rex"


def test_a_claim_is_not_hidden_by_a_finished_concept_of_its_name(library: Library, rex: Concept) -> None:
    library.add(rex)
    library.claim("rex", "<rex2>", rex.base, 4, band=2, directions=32)
    with pytest.raises(InputError, match="overlaps that of 'rex'"):
        library.claim("tom", "<tom>", rex.base, 4, band=2, directions=32)
    with pytest.raises(InputError, match="overlaps that of 'rex'"):
        library.claim("tom", "<tom>", rex.base, 4, band=0, directions=32)
    for trigger in ("<rex>", "<REX2>"):
        with pytest.raises(InputError, match="belongs to concept 'rex'"):
            library.claim("tom", trigger, rex.base, 4, directions=32)
    assert library.claim("tom", "<tom>", rex.base, 4, directions=32) == Band(1, 4)


def test_a_concept_under_a_removed_claim_can_be_restored(library: Library, rex: Concept) -> None:
    library.add(rex)
    library.remove("rex")
    library.claim("rex", "<rex>", rex.base, 4, band=5, directions=32)
    library.remove("rex")
    assert library.removed() == ("rex",)
    assert library.restore("rex").band == Band(0, 4)


def test_a_replaced_file_can_be_restored_and_the_other_one_back_again(library: Library, rex: Concept) -> None:
    library.add(rex)
    (library.folder("rex") / "preview.png").write_bytes(b"kept")
    library.add(called(rex, "rex", 1), force=True)
    with pytest.raises(InputError, match="again"):
        library.restore("rex")
    for band in (0, 1, 0):
        assert library.restore("rex", force=True).band.index == band
        assert library.info("rex").band.index == band
        assert (library.folder("rex") / "preview.png").exists()
        assert len(library.trash()) == 1


def test_any_entry_of_the_trash_can_be_chosen_by_its_time(library: Library, rex: Concept) -> None:
    for band in range(3):
        library.add(called(rex, "rex", band))
        library.remove("rex")
    stamps = [entry.stamp for entry in library.trash()]
    assert library.restore("rex", at=stamps[2]).band.index == 0
    with pytest.raises(InputError, match="nothing to restore"):
        library.restore("rex", at="20000101T000000.000000", force=True)


def test_the_last_removed_is_the_last_where_the_clock_was_set_back(library: Library, rex: Concept) -> None:
    library.add(called(rex, "rex", 0))
    future = library.remove("rex")
    future.rename(future.with_name("rex@29990101T000000.000000"))
    library.add(called(rex, "rex", 1))
    library.remove("rex")
    assert library.restore("rex").band.index == 1


def test_a_concept_in_training_is_not_removed(library: Library, rex: Concept) -> None:
    library.add(rex)
    lock = library.root / ".locks" / "rex.lock"
    lock.parent.mkdir()
    with FileLock(lock):
        for change in (library.remove, lambda name: library.rename(name, "max")):
            with pytest.raises(InputError, match="being trained"):
                change("rex")
    library.remove("rex")


@pytest.mark.parametrize("kind", ["empty", "text", "folder", "dangling", "unreadable name"])
def test_one_bad_entry_is_shown_as_what_it_is_and_can_be_removed(library: Library, rex: Concept, kind: str) -> None:
    library.add(rex)
    name = "\U00020000" * 60 if kind == "unreadable name" else "bad"
    folder = library.root / name
    folder.mkdir()
    file = folder / "concept.safetensors"
    if kind == "folder":
        file.mkdir()
    elif kind == "dangling":
        file.symlink_to(folder / "gone")
    elif kind == "unreadable name":
        rex.save(file)
    else:
        file.write_bytes(b"" if kind == "empty" else b"no concept at all")
    assert names(library) == ["rex"]
    assert library.claim("tom", "<tom>", rex.base, 4, directions=32) == Band(1, 4)
    if kind != "dangling":
        (bad,) = library.stock().unreadable
        assert bad.name == name
        assert bad.reason
    if kind in ("empty", "text", "unreadable name"):
        library.remove(name)
        assert library.stock().unreadable == ()


def test_the_folder_gives_the_name_whatever_the_file_says(library: Library, rex: Concept) -> None:
    library.add(rex)
    library.folder("rex").rename(library.root / "max")
    assert names(library) == ["max"]
    assert library.info("max").name == library.get("max").name == "max"
    assert done(library) == ["called as its folder"]
    assert Concept.load(library.path("max")).name == "max"


def test_a_concept_is_renamed(library: Library, rex: Concept) -> None:
    library.add(rex)
    library.add(called(rex, "tom", 1))
    info = library.rename("rex", "max")
    assert (info.name, info.trigger) == ("max", "<rex>")
    assert Concept.load(library.path("max")).name == "max"
    assert names(library) == ["max", "tom"]
    with pytest.raises(InputError, match="has a concept 'tom'"):
        library.rename("max", "Tom")
    assert library.rename("max", "Max").name == "Max"
    assert library.rename("Max", "<max>").trigger == "<max>"


def test_names_of_another_case_or_unicode_form_are_the_same_name(library: Library, rex: Concept) -> None:
    library.add(called(rex, "caf\u00e9", 0))
    with pytest.raises(InputError, match="already"):
        library.add(called(rex, "CAFE\u0301", 1))
    assert library.info("Cafe\u0301").name == "caf\u00e9"
    library.remove("CAF\u00c9")
    assert library.restore("cafe\u0301").name == "caf\u00e9"


def test_check_releases_what_dead_trainings_reserve_and_keeps_what_can_go_on(library: Library, rex: Concept) -> None:
    library.claim("dead", "<dead>", rex.base, 4, directions=32)
    library.claim("stopped", "<stopped>", rex.base, 4, directions=32)
    (library.folder("stopped") / "training").mkdir()
    (library.folder("stopped") / "training" / "checkpoint.safetensors").write_bytes(b"x")
    library.add(called(rex, "filled", 2))
    library.claim("filled", "<filled>", rex.base, 4, band=2, directions=32)
    library.claim("torn", "<torn>", rex.base, 4, directions=32)
    (library.folder("torn") / "claim.json").write_text("")
    (library.root / "empty").mkdir()
    assert len([finding for finding in library.check() if finding.done]) >= 4
    assert [path.parent.name for path in sorted(library.root.glob("*/claim.json"))] == ["stopped"]
    assert library.check() == []


def test_check_says_what_it_cannot_mend(library: Library, rex: Concept) -> None:
    library.add(rex)
    called(rex, "copy", 0).save(library.root / "copy" / "concept.safetensors")
    (library.root / "photos").mkdir()
    (library.root / "photos" / "a.png").write_bytes(b"x")
    (library.root / "broken").mkdir()
    (library.root / "broken" / "concept.safetensors").write_bytes(b"x")
    said = "\n".join(f"{finding.path.name}: {finding.what}" for finding in library.check() if not finding.done)
    assert "shares a band with 'copy'" in said or "shares a band with 'rex'" in said
    assert "photos: neither a concept nor a training" in said
    assert "concept.safetensors" in said


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_library_that_cannot_be_written_is_read(library: Library, rex: Concept) -> None:
    library.add(rex)
    (library.root / ".rex.abcdefgh.part").mkdir()
    library.root.chmod(0o555)
    try:
        assert names(library) == ["rex"]
    finally:
        library.root.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_a_concept_is_said(library: Library) -> None:
    library.folder("rex").mkdir(parents=True)
    os.mkfifo(library.path("rex"))
    (bad,) = library.stock().unreadable
    assert bad.name == "rex"


@pytest.mark.parametrize("missed", [MissingError("gone"), FileNotFoundError(errno.ENOENT, "gone")])
def test_what_was_away_when_it_was_read_is_left_out_in_silence(
    library: Library, rex: Concept, missed: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library.add(rex)

    def move(folder: Path) -> ConceptInfo:  # as another process does that restores it at once, at every try
        raise missed

    monkeypatch.setattr(holdings, "read_entry", move)
    assert names(library) == []
    assert library.stock().unreadable == ()
    assert caplog.text == ""


LISTING = """
import sys
from spectral_fusion.concept import Library
library = Library(sys.argv[1])
for _ in range(40):
    library.list()
    library.removed()
"""
REMOVING = """
import sys
from spectral_fusion.concept import Library, library
library.LOCK_SECONDS = 600.0  # the two are beside others, and whoever waits is not the next
library, name = Library(sys.argv[1]), sys.argv[2]
for _ in range(10):
    library.remove(name)
    library.restore(name)
"""


def test_listing_beside_processes_that_remove_and_restore(library: Library, rex: Concept) -> None:
    for band, name in enumerate(("rex", "tom")):
        library.add(called(rex, name, band))
    root = str(library.root)
    commands = [[sys.executable, "-c", LISTING, root]] * 2
    commands += [[sys.executable, "-c", REMOVING, root, name] for name in ("rex", "tom")]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    said = [worker.communicate()[1] for worker in workers]
    assert "".join(said) == ""
    assert names(library) == ["rex", "tom"]


def test_a_disk_without_locks_is_one_line(library: Library, rex: Concept, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    library.add(rex)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for change in (library.remove, library.release):
        with pytest.raises(InputError, match="cannot be locked"):
            change("rex")
    assert names(library) == ["rex"]


def test_a_training_holds_its_name_in_every_form(library: Library) -> None:
    forms = {training_lock(library.root, name) for name in ("caf\u00e9", "CAFE\u0301", "Cafe\u0301")}
    assert len(forms) == 1
    assert len(training_lock(library.root, "\u0390" * 64).name.encode()) < 255


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 6), st.integers(1, 4), st.sampled_from(["top", "bottom"]), st.integers(0, 20), st.booleans()
        ),
        max_size=12,
    )
)
def test_bands_that_meet_are_found_without_looking_at_all_pairs(asked: list[tuple[int, int, Side, int, bool]]) -> None:
    held = [
        Held(f"c{n}", "one" if first else "other", Band(index, rank, side), more and Band(index, rank).depth + more)
        for n, (index, rank, side, more, first) in enumerate(asked)
    ]
    expected = {
        frozenset((one.name, other.name))
        for one, other in combinations(held, 2)
        if one.base == other.base and one.band.overlaps(other.band, max(one.directions, other.directions))
    }
    assert {frozenset(pair) for pair in meetings(held)} == expected


def test_a_check_takes_as_long_as_there_are_bands() -> None:
    many = [Held(f"c{n}", "base", Band(n, 1, side), 10**6) for n in range(20_000) for side in ("top", "bottom")]
    assert meetings(many) == set()


def test_a_file_that_comes_back_while_it_is_read_is_no_broken_one(
    library: Library, rex: Concept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library.add(rex)
    read, failed = holdings.read_entry, []

    def gone_once(path: Path) -> ConceptInfo:
        if not failed:
            failed.append(path)
            raise InputError(f"{path} is empty, cut off or no safetensors file: No such file or directory")
        return read(path)

    monkeypatch.setattr(holdings, "read_entry", gone_once)
    assert names(library) == ["rex"]
    assert failed
    assert caplog.text == ""


@pytest.mark.parametrize("change", [{"trigger": "<a\x1b[31m>"}, {"trigger": None}, {"base": 5}, {"base": "a\x1b"}])
def test_a_claim_that_says_no_trigger_or_base_is_shown_as_unreadable(library: Library, change: dict) -> None:
    (library.root / "kit").mkdir(parents=True)
    record = {"trigger": "<kit>", "base": "b", "band": 0, "rank": 1} | change
    (library.root / "kit" / "claim.json").write_text(json.dumps(record))
    stock = library.stock()
    assert stock.claims == ()
    assert stock.broken_claims[0].reason.isprintable()


def test_notes_that_are_a_link_to_themselves_do_not_hide_a_concept(library: Library, rex: Concept) -> None:
    library.add(rex)
    notes = library.folder("rex") / "notes.json"
    notes.symlink_to(notes)
    stock = library.stock()
    assert "rex" in [info.name for info in stock.concepts]
    assert not stock.unreadable


def test_a_library_that_is_no_folder_is_said(tmp_path: Path) -> None:
    """Once a file was taken for a library without concepts."""
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe"):
        with pytest.raises(InputError, match="is no folder"):
            Library(tmp_path / name).stock()
