"""The whole story in one walk: six photos in, a concept out, two in one picture by regions, saved as one LoRA.

By keyboard alone, by touch on a phone, and with the page loaded again in the middle of everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from browsing import Visit, visiting
from playwright.sync_api import Page, expect
from serving import Server

from spectral_fusion.concept import Library
from spectral_fusion.picture import read_parameters

pytestmark = pytest.mark.slow

QUICK = {"steps": 6, "rank": 4, "batch-size": 2, "resolution": 32, "sample-every": 3, "distillation-prompts": 2}
PLACES = ("Create", "Train", "Library", "Lab")
MOST_TABS = 150
LONG = 600_000  # ms


@dataclass(frozen=True)
class Hands:
    """How somebody uses the page: `press` what a selector names, `write` into it, `choose` of a list, `go` to a place.

    again: what happens after each step.
    """

    page: Page
    press: Callable[[str], None]
    write: Callable[[str, str], None]
    choose: Callable[[str, str], None]
    go: Callable[[str], None]
    again: Callable[[], None] = lambda: None


def by_mouse(page: Page, again: Callable[[], None]) -> Hands:
    def go(place: str) -> None:
        page.get_by_role("tab", name=place).click()

    return Hands(page, page.click, page.fill, page.select_option, go, again)


def by_touch(page: Page) -> Hands:
    def write(selector: str, text: str) -> None:
        page.tap(selector)
        page.fill(selector, text)

    def go(place: str) -> None:
        page.get_by_role("tab", name=place).tap()

    return Hands(page, page.tap, write, page.select_option, go)


def by_keys(page: Page) -> Hands:
    """With Tab, the arrow keys, Enter and letters alone; what Tab does not reach fails."""

    def reach(selector: str) -> None:
        page.locator(selector).first.wait_for()
        for _ in range(MOST_TABS):
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    def press(selector: str) -> None:
        reach(selector)
        page.keyboard.press("Enter")

    def write(selector: str, text: str) -> None:
        reach(selector)
        page.keyboard.press("Control+A")
        page.keyboard.type(text)

    def choose(selector: str, value: str) -> None:
        reach(selector)
        label = page.locator(selector).evaluate(
            "(node, value) => [...node.options].find(one => one.value === value).text", value
        )
        page.keyboard.type(label)

    def go(place: str) -> None:
        reach("[role=tab][aria-selected=true]")
        for _ in PLACES:
            if page.evaluate("document.activeElement.textContent.trim()") == place:
                return
            page.keyboard.press("ArrowRight")
        raise AssertionError(f"the arrow keys do not reach {place}")

    return Hands(page, press, write, choose, go)


def train(hands: Hands, server: Server, name: str) -> None:
    """Six photos in, a concept out; ends on Create with it in the prompt."""
    page = hands.page
    hands.go("Train")
    with page.expect_file_chooser() as chooser:
        hands.press(".train [data-do=browse]")
    chooser.value.set_files(sorted((server.place / "photos").iterdir()))
    expect(page.locator(".photo")).to_have_count(6)
    hands.again()
    expect(page.locator(".photo")).to_have_count(6)
    hands.write("#train-name", name)
    hands.write("#train-class", "cat")
    hands.press("#train-advanced summary")
    for setting, value in QUICK.items():
        hands.write(f"#train-{setting}", str(value))
    hands.again()
    expect(page.locator("#train-name")).to_have_value(name)
    expect(page.locator("#train-steps")).to_have_value(str(QUICK["steps"]))
    hands.press("#start-training")
    expect(page.locator("#training-state")).to_contain_text(name)
    hands.again()
    expect(page.locator("#training-state")).to_contain_text(name)
    page.wait_for_selector("#training-state[data-kind=finished]", timeout=LONG)
    expect(page.locator("#training-samples img").first).to_be_visible()
    hands.again()
    hands.press("#open-trained")
    expect(page.locator("#f-prompt")).to_have_value(f"a photo of a <{name}> cat")


def draw(hands: Hands, server: Server, name: str) -> Path:
    """Two concepts in one picture, a region each."""
    page = hands.page
    hands.press("#chip-rex")
    expect(page.locator("#chip-rex")).to_have_attribute("aria-pressed", "true")
    for _ in range(2):
        hands.press("#add-region")
    hands.choose("#region-concept-0", "rex")
    hands.choose("#region-concept-1", name)
    expect(page.locator(".region .tag")).to_have_text(["rex", name])
    hands.write("#f-steps", "30")
    hands.again()
    expect(page.locator(".region .tag")).to_have_text(["rex", name])
    before = server.pictures
    hands.press("#generate")
    expect(page.locator(".status")).to_contain_text(" · step ")
    hands.again()
    page.wait_for_function("document.querySelector('#cancel').disabled", timeout=LONG)
    expect(page.locator(".strip [role=option]").first).to_have_attribute("aria-selected", "true")
    [picture] = sorted(set(server.pictures) - set(before))
    return picture


def save(hands: Hands, name: str) -> None:
    """Both as one LoRA; compared, and that stopped."""
    page = hands.page
    hands.go("Lab")
    for concept in ("rex", name):
        hands.press(f"#fuse-{concept}")
    expect(page.locator("#fuse-check .good")).to_contain_text("go together")
    hands.again()
    expect(page.locator("#fuse-check .good")).to_contain_text("go together")
    expect(page.locator(f"#fuse-{name}")).to_have_attribute("aria-pressed", "true")
    hands.press("#save-lora")
    expect(page.locator("#fused-files a")).to_have_count(3)
    hands.press("#evaluate")
    row = page.locator("#evaluations li").first
    expect(row).to_contain_text(name)
    hands.again()
    expect(row).to_contain_text(name)
    stop = "#evaluations button"
    if "Stop" in row.inner_text():
        hands.press(stop)


def walk(hands: Hands, server: Server, name: str) -> None:
    train(hands, server, name)
    picture = draw(hands, server, name)
    parameters = read_parameters(picture)
    assert parameters.weights.keys() == {"rex", name}
    regions = json.loads(parameters.settings["Regions"])
    assert [region["box"][0] < 0.5 for region in regions] == [True, False]
    save(hands, name)


@pytest.fixture
def name(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """Of the concept that is trained; it makes room afterwards."""
    photos = server.place / "concepts" / "rex" / "images"
    if not photos.exists():
        photos.mkdir()
        for photo in (server.place / "photos").iterdir():
            (photos / photo.name).write_bytes(photo.read_bytes())
    name = {"keyboard": "kit", "touch": "mia"}.get(str(request.node.name).split("_")[4], "leo")
    yield name
    library = Library(server.place / "concepts")
    if any(info.name == name for info in library.list()):
        library.remove(name)


def test_the_story_by_keyboard_alone(server: Server, visit: Visit, name: str) -> None:
    walk(by_keys(visit.page), server, name)


def test_the_story_by_touch_on_a_phone(server: Server, name: str) -> None:
    with visiting(server.url, width=390, height=844, has_touch=True, is_mobile=True) as visit:
        visit.page.wait_for_selector("#chip-rex")
        walk(by_touch(visit.page), server, name)


def test_the_story_with_the_page_loaded_again_in_the_middle_of_everything(
    server: Server, visit: Visit, name: str
) -> None:
    walk(by_mouse(visit.page, visit.open_again), server, name)
