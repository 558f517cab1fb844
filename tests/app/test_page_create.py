"""Create in a real browser."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from browsing import SECONDS, Visit, visiting
from creating import create, drag, idle, write
from playwright.sync_api import Page, expect
from serving import Server, serve

from concepts import make_concept
from spectral_fusion.concept import Library
from spectral_fusion.picture import read_parameters
from tiny import tiny_base

pytestmark = pytest.mark.slow

LAYOUT_SHIFT = """() => { window.shift = 0; new PerformanceObserver(list => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({type: "layout-shift", buffered: true}); }"""


def regions(picture: Path) -> list[tuple[str, list[float]]]:
    records = json.loads(read_parameters(picture).settings["Regions"])
    return [(record["prompt"], record["box"]) for record in records]


def test_a_page_opened_while_the_base_loads_takes_its_size_once_it_is_there(page: Page) -> None:
    expect(page.locator("#f-width")).to_have_value("32")
    expect(page.locator("#f-height")).to_have_value("32")


def test_a_newcomer_presses_once_and_sees_two_subjects(server: Server, visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_role("heading", level=1)).to_have_text("Spectral Fusion")
    expect(page.locator(".welcome li")).to_have_count(3)
    page.get_by_role("button", name="Draw two examples together").click()
    page.wait_for_selector(".strip [role=option]")
    idle(page)
    [picture] = server.pictures
    assert read_parameters(picture).weights == {"rex": 1.0, "tom": 1.0}
    assert len(regions(picture)) == 2
    expect(page.locator(".region .tag")).to_have_text(["rex", "tom"])
    expect(page.locator(".welcome")).to_be_hidden()
    shown = "image => image.clientWidth / image.naturalWidth"
    scale = page.locator(".frame img").evaluate(shown)
    assert scale >= 2, "large"
    assert scale % 1 == 0, "and sharp: at a whole multiple"
    expect(page.locator(".status")).to_contain_text(f"shown {scale:.0f} times as large")


def test_regions_are_drawn_on_the_picture_named_by_their_concept_and_kept_in_order(
    server: Server, visit: Visit, page: Page
) -> None:
    write(page, prompt="a <tom> cat and a <rex> dog", steps=2)
    page.click("#draw-regions")
    drag(page, 0.05, 0.1, 0.45, 0.9)
    drag(page, 0.55, 0.1, 0.95, 0.9)
    page.keyboard.press("Escape")
    expect(page.locator(".region .tag")).to_have_text(["tom", "rex"])
    colours = page.eval_on_selector_all(".region", "all => all.map(one => getComputedStyle(one).borderTopColor)")
    assert len(set(colours)) == 2
    second = page.locator(".region").nth(1)
    second.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    page.locator(".region-row").first.get_by_label("left %").fill("10")
    [picture] = create(page, server)
    (first, one), (other, two) = regions(picture)
    assert (first, other) == ("a <tom> cat and a dog", "a cat and a <rex> dog")
    assert one[0] == 0.1
    assert two == pytest.approx([0.54, 0.1, 0.94, 0.91], abs=0.02)
    page.keyboard.press("Escape")
    second.focus()
    page.keyboard.press("Delete")
    expect(page.locator(".region")).to_have_count(1)
    visit.open_again()
    expect(page.locator(".region .tag")).to_have_text(["tom"])
    page.click("#reuse")
    expect(page.locator(".region .tag")).to_have_text(["tom", "rex"])
    expect(page.locator("#regions .count")).to_have_text("(2)")


def test_a_pasted_seed_is_kept_and_an_upper_case_trigger_is_the_same(server: Server, page: Page) -> None:
    write(page, prompt="a <REX> dog", steps=1)
    page.focus("#f-seed")
    page.keyboard.insert_text("4242")
    [picture] = create(page, server)
    assert read_parameters(picture).settings["Seed"] == "4242"
    assert read_parameters(picture).weights == {"rex": 1.0}
    expect(page.locator("#f-seed")).to_have_value("4242")
    page.get_by_role("button", name="New", exact=True).click()
    [other] = create(page, server)
    assert read_parameters(other).settings["Seed"] != "4242"


def test_reload_in_the_middle_finds_form_and_job_again_and_cancels_it(server: Server, visit: Visit, page: Page) -> None:
    before = len(server.pictures)
    write(page, prompt="a <rex> dog on a long road", steps=150, pictures=36, width=64, height=64)
    page.locator("#weight-rex").fill("0.25")
    page.click("#generate")
    expect(page.locator(".status")).to_contain_text("of 150")
    visit.open_again()
    expect(page.locator("#f-prompt")).to_have_value("a <rex> dog on a long road")
    expect(page.locator("#weight-rex")).to_have_value("0.25")
    expect(page.locator(".status")).to_contain_text("of 150")
    page.keyboard.press("Escape")
    idle(page)
    assert len(server.pictures) < before + 36, "the others were not made any more"
    expect(page.locator("#generate")).to_be_enabled()


def test_two_visitors_wait_for_one_another_and_cancel_their_own_alone(server: Server, visit: Visit, page: Page) -> None:
    write(page, prompt="a dog", steps=150, pictures=36, width=64, height=64)
    page.click("#generate")
    expect(page.locator(".status")).to_contain_text("of 150")
    other = visit.another()
    write(other.page, prompt="a cat", steps=1)
    other.page.click("#generate")
    expect(other.page.locator(".status")).to_contain_text("1 before this")
    other.page.click("#cancel")
    idle(other.page)
    expect(other.page.locator(".status")).not_to_contain_text("waiting")
    expect(page.locator("#cancel")).to_be_enabled()
    Library(server.place / "concepts").add(make_concept(tiny_base(), "kit", band=4))
    for seen in (page, other.page):
        expect(seen.locator("#chip-kit")).to_be_visible()
    assert page.locator("#chip-kit img").count() == 0, "no picture of another concept"
    Library(server.place / "concepts").remove("kit")
    expect(page.locator("#chip-kit")).to_have_count(0)
    page.click("#cancel")
    idle(page)
    assert other.said == []


def test_a_weight_that_moves_draws_again(server: Server, page: Page) -> None:
    write(page, prompt="a <rex> dog", steps=1)
    page.check("#live")
    before = len(server.pictures)
    page.locator("#weight-rex").fill("0.5")
    page.locator("#weight-rex").blur()
    until = time.monotonic() + SECONDS
    while len(server.pictures) == before and time.monotonic() < until:
        page.wait_for_timeout(50)
    assert read_parameters(server.pictures[-1]).weights == {"rex": 0.5}


def test_an_opened_picture_gives_its_settings_and_itself_again(server: Server, visit: Visit, page: Page) -> None:
    write(page, prompt="a <rex> dog on sand", steps=3, guidance=3)
    page.locator("#weight-rex").fill("0.7")
    [picture] = create(page, server)
    page.click("#presets summary")
    page.get_by_role("button", name="Clear the form").click()
    page.set_input_files(".create .file", picture)
    expect(page.locator("#f-prompt")).to_have_value("a <rex> dog on sand")
    expect(page.locator("#weight-rex")).to_have_value("0.7")
    [again] = create(page, server)
    assert again.read_bytes() == picture.read_bytes()


def test_a_grid_and_its_sheet_in_the_form_again(server: Server, page: Page) -> None:
    write(page, prompt="a <rex> dog", steps=1, pictures=2)
    page.click("#grid summary")
    page.select_option("#grid-0", "weights")
    page.fill("#grid-values-0", "0, 1")
    made = create(page, server, pictures=5)
    assert made[-1].stem.endswith("grid")
    page.locator("[data-do=clear-form]").evaluate("node => node.click()")
    page.click(".strip [role=option] >> nth=0")
    page.click("#reuse")
    expect(page.locator("#grid-values-0")).to_have_value("0, 1")
    expect(page.locator("#f-pictures")).to_have_value("2")
    expect(page.locator("#weight-rex")).to_have_value("1")


def test_what_is_wrong_stands_beside_its_field_and_what_is_written_never_runs(server: Server, page: Page) -> None:
    ran: list[str] = []
    page.on("dialog", lambda dialog: ran.append(dialog.message))
    write(page, prompt="a <img src=x onerror=alert(1)> <rxe> dog")
    pictures = server.pictures
    page.keyboard.press("Control+Enter")
    expect(page.locator("#e-prompt")).to_contain_text("did you mean <rex>?")
    expect(page.locator("#f-prompt")).to_have_attribute("aria-invalid", "true")
    assert page.evaluate("getSelection().toString() || document.activeElement.id") in ("<rxe>", "f-prompt")
    write(page, prompt="a dog", width=65)
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-field=width] .problem")).to_contain_text("multiple of 8")
    assert (server.pictures, ran) == (pictures, [])


def test_by_keyboard_alone(server: Server, page: Page) -> None:
    page.focus("#f-prompt")
    page.keyboard.type("a <re")
    expect(page.locator(".completion [aria-selected=true]")).to_contain_text("<rex>")
    page.keyboard.press("Tab")
    page.keyboard.type(" dog")
    expect(page.locator("#f-prompt")).to_have_value("a <rex> dog")
    slider = page.get_by_label("Weight of rex", exact=True)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#weight-rex")).to_have_value("0.95")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.focus("#f-steps")
    page.keyboard.press("Control+A")
    page.keyboard.type("1")
    strip = page.locator(".strip [role=option]")
    names = strip.evaluate_all("nodes => nodes.map(node => node.dataset.name)")
    page.keyboard.press("Control+Enter")
    expect(strip.first).not_to_have_attribute("data-name", names[0] if names else "")
    expect(strip.first).to_have_attribute("aria-selected", "true")
    idle(page)
    strip.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.get_by_role("tab", name="Create").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Train")).to_have_attribute("aria-selected", "true")


def test_nothing_moves_while_eight_pictures_are_made(server: Server, visit: Visit, page: Page) -> None:
    page.evaluate(LAYOUT_SHIFT)
    write(page, prompt="a <rex> dog", steps=2)
    page.wait_for_timeout(600)
    page.evaluate("window.shift = 0")
    for _ in range(8):
        create(page, server)
    assert page.evaluate("window.shift") < 0.1


def test_a_star_a_deleted_picture_and_the_bin(server: Server, page: Page) -> None:
    write(page, prompt="a dog", steps=1)
    [picture] = create(page, server)
    expect(page.locator(".strip [aria-selected=true]")).to_have_attribute("data-name", picture.name)
    page.click("#star")
    expect(page.locator("#star")).to_have_attribute("aria-pressed", "true")
    page.click("#starred")
    expect(page.locator(".strip [role=option]")).to_have_count(1)
    page.click("#delete")
    expect(page.locator(".strip [role=option]")).to_have_count(0)
    assert not picture.exists()
    page.get_by_role("button", name="Bring it back").click()
    expect(page.locator(".strip [role=option]")).to_have_count(1)
    assert picture.exists()


def test_every_place_fits_every_width_in_light_and_dark(server: Server, page: Page) -> None:
    for width in (320, 390, 768, 1440, 2560):
        page.set_viewport_size({"width": width, "height": 900})
        for place in ("create", "train", "library", "lab"):
            page.evaluate(f"document.dispatchEvent(new CustomEvent('spectral-fusion:place', {{detail: '{place}'}}))")
            page.wait_for_timeout(150)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (width, place)
    page.click("#scheme")
    assert page.evaluate("document.body.classList.contains('dark')")
    page.reload()
    page.wait_for_selector(".create.ready", state="attached")
    expect(page.get_by_role("tab", name="Lab")).to_have_attribute("aria-selected", "true")
    assert page.evaluate("document.body.classList.contains('dark')")


def test_history_survives_a_restart(server: Server) -> None:
    with serve(server.place) as second, visiting(second.url, width=390, height=844) as visit:
        newest = second.pictures[-1]
        expect(visit.page.locator(".strip [role=option]").first).to_have_attribute("data-name", newest.name)
        visit.page.click("#reuse")
        expect(visit.page.locator("#f-prompt")).to_have_value(read_parameters(newest).prompt)
