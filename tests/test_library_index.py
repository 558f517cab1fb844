"""The index of a large library says what the files say, whatever happens to either."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from concepts import make_concept
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.cli import app
from spectral_fusion.concept import Concept, Library
from spectral_fusion.concept import index as indexing
from spectral_fusion.concept.claim import Room, capacity, free_bands
from spectral_fusion.concept.holdings import Reader, take_stock
from spectral_fusion.concept.index import INDEX
from spectral_fusion.concept.joint import measure_overlaps
from spectral_fusion.concept.overlaps import library_overlaps
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band


@pytest.fixture(scope="module")
def rex(shared_base: StableDiffusion) -> Concept:
    return make_concept(shared_base, "rex", targets=("to_q", "to_k"))


@pytest.fixture
def library(tmp_path: Path, rex: Concept, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Three concepts, with an index as of a large library."""
    monkeypatch.setattr(indexing, "SMALL", 2)
    library = Library(tmp_path)
    for name in ("rex", "tom", "kit"):
        library.add(replace(rex, name=name, trigger=f"<{name}>"))
    assert [info.name for info in library.list()] == ["kit", "rex", "tom"]
    assert (tmp_path / INDEX).is_file()
    return library


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the concepts whose files are read."""
    names: list[str] = []
    read = Reader.info

    def note(self: Reader, folder: Path) -> object:
        names.append(folder.name)
        return read(self, folder)

    monkeypatch.setattr(Reader, "info", note)
    return names


def said(library: Library) -> list[dict]:
    """What a listing says, and what the files say."""
    listed, read = library.stock(), take_stock(library.root)
    assert [vars(info) for info in listed.concepts] == [vars(info) for info in read.concepts]
    assert listed.tags == read.tags
    return [vars(info) for info in listed.concepts]


def test_a_second_listing_opens_no_concept(library: Library, opened: list[str]) -> None:
    library.list()
    assert opened == []
    said(library)


def test_only_what_changed_is_read_again(library: Library, opened: list[str]) -> None:
    library.set_trigger("tom", "<tommy>")
    opened.clear()
    assert library.info("tom").trigger == "<tommy>"
    assert [info.trigger for info in library.list()] == ["<kit>", "<rex>", "<tommy>"]
    assert opened == ["tom"]
    library.remove("kit")
    assert [info.name for info in library.list()] == ["rex", "tom"]
    assert opened == ["tom"]
    said(library)


@pytest.mark.parametrize("harm", ["cut", "noise", "empty", "digest", "other json"])
def test_a_damaged_index_is_made_again(library: Library, harm: str, opened: list[str]) -> None:
    path = library.root / INDEX
    good = path.read_bytes()
    path.write_bytes(
        {
            "cut": good[: len(good) // 2],
            "noise": good.replace(b"<rex>", b"<max>"),
            "empty": b"",
            "digest": b"0" * 64 + good[64:],
            "other json": b"{}\n[]",
        }[harm]
    )
    assert [info.trigger for info in library.list()] == ["<kit>", "<rex>", "<tom>"]
    assert sorted(opened) == ["kit", "rex", "tom"]
    assert path.read_bytes() == good


def test_an_entry_with_a_true_hash_is_checked_as_a_header_is(library: Library) -> None:
    import hashlib

    path = library.root / INDEX
    record = json.loads(path.read_bytes().partition(b"\n")[2])
    record["concepts"]["rex"]["info"]["trigger"] = "no trigger"
    record["concepts"]["tom"]["info"]["layers"] = 99
    body = json.dumps(record).encode()
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert [info.trigger for info in library.list()] == ["<kit>", "<rex>", "<tom>"]


def test_the_index_of_a_newer_version_lies_beside_and_stays(library: Library) -> None:
    newer = library.root / ".index-2.json"
    newer.write_bytes(b"of another program")
    library.remove("kit")
    assert [info.name for info in library.list()] == ["rex", "tom"]
    assert newer.read_bytes() == b"of another program"


def test_a_small_library_has_no_index(tmp_path: Path, rex: Concept) -> None:
    Library(tmp_path).add(rex)
    Library(tmp_path).list()
    assert not (tmp_path / INDEX).exists()


def test_concepts_are_found_by_words_and_tags(library: Library) -> None:
    def names(*options: str) -> list[str]:
        result = CliRunner().invoke(app, ["concepts", "list", "--json", "--library", str(library.root), *options])
        return [record["name"] for record in json.loads(result.stdout)]

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["concepts", *arguments, "--library", str(library.root)])
        return result.stdout if result.exit_code == 0 else result.stderr

    assert "Studio A" in run("tag", "tom", "Studio A", "striped")
    assert names("--tag", "studio a") == ["tom"]
    assert names("--search", "STRIPED dog") == ["tom"]
    assert names("--search", "re") == ["rex"]
    assert "none" in run("untag", "tom", "striped", "Studio A")
    assert names("--tag", "striped") == []
    assert "cannot be a tag" in run("tag", "tom", "a,b")
    with pytest.raises(InputError, match="did you mean 'tom'"):
        library.notes("toms")
    said(library)


def test_the_overlap_with_all_is_that_of_each_two(library: Library, shared_base: StableDiffusion) -> None:
    library.add(make_concept(shared_base, "far", band=3, targets=("to_q",)))
    new = make_concept(shared_base, "new", rank=6, targets=("to_q", "to_v"))
    found = library_overlaps(new, library)
    assert [overlap.second for overlap in found] == ["kit", "rex", "tom"]
    for overlap in found:
        (pair,) = measure_overlaps([new, library.get(overlap.second)])
        assert overlap.value == pytest.approx(pair.value, abs=2e-3)
        assert overlap.layer.endswith("to_q")


def test_the_room_is_what_bands_of_each_rank_find_free() -> None:
    taken = [Band(0, 4), Band(1, 8, "bottom"), Band(2, 16), Band(9, 4)]
    for rank in (1, 3, 4, 8):
        for side in ("top", "bottom"):
            bands = [Band(index, rank, side) for index in range(32 // rank)]
            free = [band for band in bands if not any(band.overlaps(other, 32) for other in taken)]
            assert free_bands(taken, rank, 32, side) == free
    assert capacity([Band(0, 8), Band(0, 4, "bottom")], [4, 8], 32) == [Room(4, 5, 5), Room(8, 2, 2)]


def test_listing_needs_no_torch(library: Library) -> None:
    import subprocess
    import sys

    code = "import sys; from spectral_fusion.concept import Library; Library(sys.argv[1]).list(); "
    code += "print('torch' in sys.modules)"
    line = [sys.executable, "-c", code, str(library.root)]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "False\n"
