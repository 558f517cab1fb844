"""Whether everybody can use the page: axe-core finds no fault in any place, in light and dark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import Visit, visiting
from creating import create, write
from playwright.sync_api import Page
from serving import Server

pytestmark = pytest.mark.slow

PLACES = ("create", "train", "library", "lab")


@pytest.fixture(scope="module")
def visit(server: Server) -> Iterator[Visit]:
    with visiting(server.url) as visit:
        visit.page.wait_for_selector("#chip-rex")
        fill(visit.page, server)
        yield visit


def fill(page: Page, server: Server) -> None:
    """Something in every place: a picture with regions, photos, a concept that is open, two that are compared."""
    write(page, prompt="a <rex> dog and a <tom> cat", steps=1)
    page.click("#add-region")
    create(page, server)
    for panel in ("start", "control", "finish", "grid", "presets", "made", "queue"):
        page.locator(f"#{panel}").evaluate("node => node.open = true")
    page.click("#start-here")
    page.wait_for_selector(".start-row img")
    page.click("#region-paint-0")
    go(page, "train")
    page.set_input_files("#train-files", sorted((server.place / "photos").glob("*.png")))
    page.locator(".photo").nth(2).wait_for()
    go(page, "library")
    page.click("#shelf [data-name=rex]")
    go(page, "lab")
    for name in ("rex", "tom"):
        page.click(f"#fuse-{name}")
    page.wait_for_selector("#fuse-check table")


def go(page: Page, place: str) -> None:
    page.evaluate(f"document.dispatchEvent(new CustomEvent('spectral-fusion:place', {{detail: '{place}'}}))")


def test_axe_sees_a_fault(visit: Visit) -> None:
    page = visit.page
    go(page, "create")
    page.evaluate("document.querySelector('.create').insertAdjacentHTML('beforeend', '<img id=bad src=data:,>')")
    found = Axe().run(page).response["violations"]
    page.evaluate("document.querySelector('#bad').remove()")
    assert [rule["id"] for rule in found] == ["image-alt"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_axe_finds_no_fault(visit: Visit, place: str, scheme: str) -> None:
    page = visit.page
    page.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
    go(page, place)
    page.wait_for_timeout(400)  # colours fade
    found = Axe().run(page).response["violations"]
    told = [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"][:4]]
    assert told == []
