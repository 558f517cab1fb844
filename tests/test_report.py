"""The report: every picture is in it, names are escaped, figures are the evaluation's."""

import json
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from spectral_fusion.evaluate.result import Drawing, Evaluation, MethodResult, Scores, Setting, Subject
from spectral_fusion.report import markdown, write_report, write_sheet
from spectral_fusion.report.page import data_uri
from spectral_fusion.report.tables import HeatMap, all_in_picture, by_concept, interference, one_in_picture, verdicts

NAMES = ("rex", "tom")
SETTINGS: tuple[Setting, ...] = ("alone", "fused", "together", "regions", "places")
EVIL = "<script>alert('x')</script> & \"quotes\""


def unique_picture(number: int, size: int = 16) -> Image.Image:
    return Image.new("RGB", (size, size), (number % 256, number // 256, 7))


def scores(identity: float = 0.9) -> Scores:
    return Scores([[identity, identity + 0.02]] * 2, [0.3, 0.4], [[3, 1], [0, 4]])


def drawings(first: int) -> tuple[Drawing, ...]:
    found: list[Drawing] = []
    for setting in SETTINGS:
        for concept in NAMES if setting in ("alone", "fused") else (None,):
            for seed in (0, 1):
                picture = unique_picture(first + len(found))
                found.append(Drawing(setting, concept, f"a {setting} {concept}", seed, picture))
    return tuple(found)


@pytest.fixture
def evaluation() -> Evaluation:
    return make_evaluation()


def make_evaluation() -> Evaluation:
    """Two methods that share what is drawn alone."""
    by_setting = {setting: scores() for setting in SETTINGS}
    one = MethodResult("spectral sum", 1234, by_setting, [[1, 0.1], [0.1, 1]], [[0.5, 0.2], [0.1, 0.4]], drawings(100))
    alone = tuple(d for d in one.drawings if d.setting == "alone")
    others = tuple(d for d in drawings(200) if d.setting not in ("alone", "places"))
    unbound = {setting: found for setting, found in by_setting.items() if setting != "places"}
    two = replace(one, name="spectral mean", scores=unbound, drawings=(*alone, *others))
    subjects = tuple(
        Subject(name, f"<{name}>", "dog", 0.95, (unique_picture(10 + number), unique_picture(20 + number)))
        for number, name in enumerate(NAMES)
    )
    base = {setting: [0.3, 0.4] for setting in SETTINGS}
    base_drawings = (Drawing("alone", None, "a dog", 0, unique_picture(300)),)
    return Evaluation(
        subjects, (one, two), base, base_drawings, {"seeds": 2, "prompts": ("a {}",)}, {"fusing": "0.1 s"}
    )


def pictures_in(page: str) -> list[bytes]:
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(BytesIO(b64decode(source))).tobytes() for source in sources]


def test_every_picture_is_in_the_page_once(evaluation: Evaluation, tmp_path: Path) -> None:
    page, _ = write_report(evaluation, tmp_path)
    drawn = [d.image for method in evaluation.methods for d in method.drawings]
    images = [*drawn, *(d.image for d in evaluation.base_drawings), *(p for s in evaluation.subjects for p in s.photos)]
    found = pictures_in(page.read_text(encoding="utf-8"))
    assert sorted(found) == sorted({image.tobytes() for image in images})


def test_the_page_needs_no_other_file_and_is_well_formed(evaluation: Evaluation, tmp_path: Path) -> None:
    text = write_report(evaluation, tmp_path)[0].read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "@import" not in text
    assert "url(" not in text
    assert 'name="viewport"' in text
    opened: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "img"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Checker().feed(text)
    assert not opened


def test_names_and_prompts_are_escaped(evaluation: Evaluation, tmp_path: Path) -> None:
    method = evaluation.methods[0]
    first = replace(method.drawings[0], prompt=EVIL)
    spoiled = replace(
        evaluation,
        subjects=(replace(evaluation.subjects[0], name=EVIL, class_word=EVIL), evaluation.subjects[1]),
        methods=(replace(method, name=EVIL, drawings=(first, *method.drawings[1:])),),
        facts={EVIL: EVIL},
    )
    text = write_report(spoiled, tmp_path, title=EVIL)[0].read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<script" not in markdown(spoiled, "Figures", "command")


def test_the_figures_are_in_the_json_and_the_page(evaluation: Evaluation, tmp_path: Path) -> None:
    page, data = write_report(evaluation, tmp_path)
    read = json.loads(data.read_text(encoding="utf-8"))
    assert read == json.loads(json.dumps(evaluation.to_json()))
    assert read["methods"][0]["scores"]["fused"]["accuracy"] == pytest.approx(7 / 8)
    text = page.read_text(encoding="utf-8")
    assert all(figure in text for figure in ("1,234", "87.5%", "0.910 ± 0.014", "0.350 ± 0.071", "0.1 s"))


def test_methods_that_share_deltas_show_their_interference_once(evaluation: Evaluation) -> None:
    assert len(interference(evaluation)) == 2


def test_verdicts_follow_the_first_method(evaluation: Evaluation) -> None:
    assert [verdict.holds for verdict in verdicts(evaluation)] == [True, False, False, False, False, True]
    worse = {**evaluation.methods[0].scores, "fused": scores(identity=0.87)}
    lossy = replace(evaluation, methods=(replace(evaluation.methods[0], scores=worse), evaluation.methods[1]))
    assert not verdicts(lossy)[0].holds
    assert "+0.030" in one_in_picture(lossy).rows[0]


def test_what_a_method_cannot_do_is_left_empty(evaluation: Evaluation) -> None:
    table = all_in_picture(evaluation)
    column = table.columns.index("identity, bound to places")
    assert [row[column] for row in table.rows] == ["0.910 ± 0.014", "", ""]
    lengths = [len(by_concept(evaluation, method).columns) for method in evaluation.methods]
    assert lengths[0] == lengths[1] + 1


def test_shades_stay_between_none_and_full() -> None:
    heat = HeatMap("", ["rex"], [[0.5]], high=2.0, digits=2)
    assert [heat.shade(value) for value in (-1, 0, 1, 5)] == [0, 0, 0.5, 1]
    assert HeatMap("", ["rex"], [[0.0]], high=0.0, digits=2).shade(0.0) == 0


def test_large_pictures_are_made_small_files() -> None:
    noise = Image.effect_noise((512, 512), 40).convert("RGB")
    uri = data_uri(noise)
    assert uri.startswith("data:image/webp;base64,")
    shown = Image.open(BytesIO(b64decode(uri.partition(",")[2]))).convert("RGB")
    assert shown.size == noise.size
    assert sum(ImageChops.difference(noise, shown).convert("L").histogram()[64:]) < 100


def test_the_contact_sheet_shows_each_concept_and_all_together(evaluation: Evaluation, tmp_path: Path) -> None:
    sheet = Image.open(write_sheet(evaluation, tmp_path / "sheet.png"))
    seen = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height) or []}
    wanted = [d.image for d in evaluation.methods[0].drawings] + [p for s in evaluation.subjects for p in s.photos]
    assert {image.getpixel((0, 0)) for image in wanted} <= seen


def test_markdown_holds_every_table(evaluation: Evaluation) -> None:
    text = markdown(evaluation, "Figures", "spectral-fusion demo")
    assert text.startswith("# Figures\n")
    for line in text.splitlines():
        if line.startswith("| rex (dog)"):
            assert line.count("|") in (8, 9)
    assert "0.500" in text
