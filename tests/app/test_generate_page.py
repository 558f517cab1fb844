"""The Generate tab in a real browser."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Visit, visiting
from playwright.sync_api import Page, expect
from serving import Server, make_place, serve

from spectral_fusion.picture import read_parameters

pytestmark = pytest.mark.slow
PATIENCE = 60_000  # ms; a machine with other work is slow
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with serve(place) as server:
        yield server


@pytest.fixture
def visit(server: Server) -> Iterator[Visit]:
    with visiting(server.url) as visit:
        yield visit


@pytest.fixture
def page(visit: Visit) -> Page:
    visit.page.wait_for_selector("#chip-rex")
    return visit.page


def set_number(page: Page, name: str, value: float) -> None:
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


def write(page: Page, name: str, text: str) -> None:
    page.locator(f"#{name} :is(textarea, input)").first.fill(text)


def press_generate(page: Page, server: Server, pictures: int = 1) -> list[Path]:
    """Press Generate, and wait until so many pictures are there and the page is idle again."""
    before = set(server.pictures)
    page.click("#generate")
    until = time.monotonic() + PATIENCE / 1000
    while len(server.pictures) < len(before) + pictures and time.monotonic() < until:
        page.wait_for_timeout(50)
    expect(page.locator("#generate")).to_be_enabled()
    made = sorted(set(server.pictures) - before)
    assert len(made) == pictures
    return made


def draw_box(page: Page, left: float, top: float, right: float, bottom: float) -> None:
    """Drag a box over the canvas; fractions of it."""
    canvas = page.locator("#canvas canvas")
    canvas.scroll_into_view_if_needed()
    area = canvas.bounding_box()
    assert area
    page.mouse.move(area["x"] + left * area["width"], area["y"] + top * area["height"])
    page.mouse.down()
    for step in (0.5, 1.0):
        x, y = left + step * (right - left), top + step * (bottom - top)
        page.mouse.move(area["x"] + x * area["width"], area["y"] + y * area["height"])
    page.mouse.up()


def test_two_concepts_with_a_box_each(server: Server, page: Page) -> None:
    page.click("#chip-rex")
    page.wait_for_selector("#weight-rex")
    page.click("#chip-tom")
    page.wait_for_selector("#weight-tom")
    set_number(page, "weight-tom", 0.5)
    set_number(page, "steps", 4)
    page.click("#boxes > button")
    draw_box(page, 0.05, 0.1, 0.45, 0.9)
    page.wait_for_selector("#region-0")
    draw_box(page, 0.55, 0.1, 0.95, 0.9)
    page.wait_for_selector("#region-1")
    write(page, "negative", "ugly")
    [picture] = press_generate(page, server)
    page.wait_for_selector("#results img")
    parameters = read_parameters(picture)
    assert parameters.prompt == "a photo of a <rex> dog and a <tom> dog"
    assert parameters.negative_prompt == "ugly"
    assert parameters.weights == {"rex": 1.0, "tom": 0.5}
    assert parameters.settings["Steps"] == "4"
    regions = parameters.settings["Regions"]
    assert regions.index("a <tom> dog") < regions.index("a <rex> dog"), "the canvas puts the newest first"


def test_a_weight_moves_while_a_picture_is_made_and_cancel_stops_it(server: Server, page: Page) -> None:
    page.click("#chip-rex")
    page.wait_for_selector("#weight-rex")
    set_number(page, "steps", 150)
    set_number(page, "pictures", 20)
    page.click("#generate")
    page.wait_for_selector("#stage img")
    expect(page.locator("#stage [role=status]")).to_contain_text("of 150")
    set_number(page, "weight-rex", 0.25)
    page.click("#cancel")
    expect(page.locator("#generate")).to_be_enabled()
    expect(page.locator("#stage progress")).to_have_count(0)
    expect(page.locator("#weight-rex input[type=number]")).to_have_value("0.25")
    set_number(page, "steps", 1)
    set_number(page, "pictures", 1)
    [picture] = press_generate(page, server)
    assert read_parameters(picture).weights == {"rex": 0.25}


def test_a_dropped_picture_restores_its_settings_and_gives_itself_again(
    server: Server, visit: Visit, page: Page
) -> None:
    write(page, "prompt", "a <rex> dog on sand")
    page.wait_for_selector("#weight-rex")
    set_number(page, "weight-rex", 0.7)
    set_number(page, "steps", 3)
    set_number(page, "guidance", 3)
    [picture] = press_generate(page, server)
    visit.open_again()
    page.wait_for_selector("#chip-rex")
    page.locator("#restore input[type=file]").set_input_files(picture)
    expect(page.locator("#prompt textarea")).to_have_value("a <rex> dog on sand")
    expect(page.locator("#weight-rex input[type=number]")).to_have_value("0.7")
    expect(page.locator("#steps input[type=number]")).to_have_value("3")
    expect(page.locator("#lock input")).to_be_checked()
    [again] = press_generate(page, server)
    assert again.read_bytes() == picture.read_bytes()


def test_a_grid_of_weights_and_seeds(server: Server, page: Page) -> None:
    page.click("#chip-rex")
    page.wait_for_selector("#weight-rex")
    set_number(page, "steps", 1)
    set_number(page, "pictures", 2)
    write(page, "factors", "0, 1")
    made = press_generate(page, server, pictures=5)
    assert made[-1].stem.endswith("grid")


def test_what_a_visitor_writes_is_shown_and_never_run(server: Server, page: Page) -> None:
    ran: list[str] = []
    write(page, "prompt", "a <img src=x onerror=alert(1)> <rxe> dog")
    page.on("dialog", lambda dialog: ran.append(dialog.message))
    pictures = server.pictures
    page.click("#generate")
    expect(page.locator(".toast-body")).to_contain_text("<rxe>")
    assert page.locator(".toast-body img").count() == 0
    expect(page.locator("#generate")).to_be_enabled()
    assert server.pictures == pictures
    assert ran == []


def test_history_survives_a_restart_and_gives_settings_back(place: Path, server: Server) -> None:
    with serve(place) as second, visiting(second.url, width=390, height=844) as visit:
        page = visit.page
        newest = second.pictures[-1]
        images = page.locator("#history img")
        expect(images.first).to_have_attribute("src", re.compile(re.escape(f"/{newest.name}") + "$"))
        images.first.click()
        expect(page.locator("#reuse")).to_be_enabled()
        page.keyboard.press("Escape")
        page.click("#reuse")
        expect(page.locator("#prompt textarea")).to_have_value(read_parameters(newest).prompt)
