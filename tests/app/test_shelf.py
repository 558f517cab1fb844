"""The library and the trainings as HTML: what visitors wrote stays text."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from concepts import make_concept
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, Library
from spectral_fusion.errors import InputError
from spectral_fusion_app.lab.fusing import Check
from spectral_fusion_app.lab.lab_html import check_html
from spectral_fusion_app.library.shelf import Bands, Shelf
from spectral_fusion_app.library.shelf_html import bands_html, facts
from spectral_fusion_app.train.curve import duration, likeness_svg, loss_svg, state_words
from spectral_fusion_app.train.progress import Point, TrainingState, smoothed

EVIL = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def rex(shared_base: StableDiffusion) -> Concept:
    return make_concept(shared_base, targets=("to_q",))


@pytest.fixture
def shelf(tmp_path: Path, rex: Concept, shared_base: StableDiffusion) -> Shelf:
    library = Library(tmp_path / "concepts")
    library.add(replace(rex, class_word=EVIL, base_name=EVIL))
    library.add(make_concept(shared_base, "tom", band=2, targets=("to_q",)))
    Image.new("RGB", (300, 300)).save(library.folder("rex") / "preview.png")
    return Shelf(library.root)


def test_a_card_holds_the_concept_and_drawings_escape_what_visitors_wrote(shelf: Shelf) -> None:
    rex, _ = shelf.cards()
    assert rex.size == shelf.library.path("rex").stat().st_size
    assert facts(rex)["Base"].startswith(EVIL), "the page's script writes this as text"
    html = bands_html(shelf.bands())
    assert "<img src=x" not in html
    assert "rex: directions" in html


def test_bands_say_who_owns_what_and_how_many_more_fit(shelf: Shelf) -> None:
    for bands in shelf.bands():
        assert bands.free == bands.directions // bands.rank - len(bands.members)
    (first, second) = (Bands.of([card.info]) for card in shelf.cards())
    both = Bands.of([card.info for card in shelf.cards()])
    assert (first.free - 1, second.free - 1) == (both.free, both.free)
    assert bands_html([both]).count("<rect") == 3


@pytest.mark.parametrize("format", ["concept", "diffusers", "kohya"])
def test_an_export_is_written_where_it_should(shelf: Shelf, tmp_path: Path, format: str) -> None:
    files = shelf.export("tom", format, tmp_path)  # type: ignore[arg-type]
    assert all(file.parent == tmp_path and file.is_file() for file in files)
    with pytest.raises(InputError, match="unknown"):
        shelf.export("tom", "pickle", tmp_path)  # type: ignore[arg-type]


def test_what_is_no_concept_is_refused_by_its_own_name(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=r"^broken\.safetensors"):
        shelf.add(tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match="no file"):
        shelf.add(None)


def test_a_check_shows_its_overlaps(shelf: Shelf) -> None:
    bands = Bands.of([card.info for card in shelf.cards()])
    good = Check(("rex", EVIL), [[1.0, 0.001], [0.001, 1.0]], 0.01, bands)
    bad = replace(good, overlaps=[[1.0, 0.4], [0.4, 1.0]])
    assert (good.disjoint, bad.disjoint) == (True, False)
    html = check_html(bad)
    assert "0.400" in html
    assert "<img src=x" not in html
    assert f"room for {bands.free}" in html


def test_a_training_is_told_in_words() -> None:
    points = tuple(Point(step, 1 / step, 10.0 * step, samples=False) for step in range(1, 5))
    state = TrainingState("training", points, steps=10)
    assert state.seconds_left == pytest.approx(60)
    words = state_words(state, 100)
    assert "step 4 of 10" in words
    assert "60 s left" in words
    assert "2 min so far" in state_words(TrainingState("preparing"), 100)
    assert [duration(seconds) for seconds in (5, 600, 12_000)] == ["5 s", "10 min", "3 h 20 min"]


def test_the_loss_is_a_line_of_bounded_length() -> None:
    points = [Point(step, 0.5, float(step), probe_loss=0.4 if step == 7 else None) for step in range(1, 5001)]
    svg = loss_svg(points)
    assert svg.count("<circle") == 1
    assert svg.count(",") < 1500
    assert loss_svg(points[:1]) == ""


def test_the_likeness_is_a_dot_for_each_samples_and_nothing_without_a_scorer() -> None:
    points = [Point(step, 0.5, float(step), likeness=step / 100 if step % 25 == 0 else None) for step in range(1, 101)]
    svg = likeness_svg(points)
    assert svg.count("<circle") == 4
    assert "step 25" in svg
    assert "step 100" in svg
    assert likeness_svg([Point(step, 0.5, float(step)) for step in range(9)]) == ""


def test_the_smoothed_loss_begins_at_the_first() -> None:
    points = [Point(step, 0.5, float(step)) for step in range(1, 9)]
    assert smoothed(points)[:3] == pytest.approx([0.5] * 3)
