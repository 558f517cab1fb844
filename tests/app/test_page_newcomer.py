"""Stumbles of somebody who has never seen the page, each mended: on a phone, with wrong input, without a connection."""

from __future__ import annotations

import json
import re

import pytest
from browsing import Visit, visiting
from creating import create, write
from playwright.sync_api import Page, Route, expect
from serving import Server

from spectral_fusion.picture import read_parameters

pytestmark = pytest.mark.slow

TOO_WIDE = """() => [...document.querySelectorAll('.head *, .tabitem *')].filter(node => {
  const box = node.getBoundingClientRect();
  if (!box.width || !node.checkVisibility({visibilityProperty: true})) return false;
  if (node.closest('.strip, .scroll, .list, iframe, svg, select')) return false;
  const cut = node.matches('button, .button') && node.scrollWidth > node.clientWidth + 1;
  return box.right > innerWidth + 1 || cut;
}).map(node => `${node.tagName}#${node.id}.${node.className} ${node.textContent.slice(0, 30)}`)"""
PLACES = ("create", "train", "library", "lab")


def go(page: Page, place: str) -> None:
    page.evaluate(f"document.dispatchEvent(new CustomEvent('spectral-fusion:place', {{detail: '{place}'}}))")


def test_before_the_first_picture_the_page_says_where_pictures_will_be(page: Page) -> None:
    expect(page.locator(".strip")).to_contain_text("Pictures stay here")
    expect(page.locator("#starred")).to_be_hidden()


def test_regions_stand_where_the_base_puts_subjects_and_each_is_drawn_again_there(server: Server, page: Page) -> None:
    write(page, prompt="a <rex> dog and a <tom> cat", steps=2)
    expect(page.locator("#redraw-row")).to_be_hidden()
    page.click("#add-region")
    page.click("#add-region")
    expect(page.locator("#redraw")).to_be_checked()
    expect(page.locator("#f-detail")).to_have_value("0")
    [picture] = create(page, server)
    settings = read_parameters(picture).settings
    boxes = [record["box"] for record in json.loads(settings["Regions"])]
    assert [(box[0], box[2]) for box in boxes] == [(0, 0.5), (0.5, 1)], "side by side"
    assert any(name.startswith("Composite") for name in settings), "with its strength, or that no outlines were found"
    page.click("#region-away-1")
    expect(page.locator("#redraw")).to_be_checked()
    page.click("#region-away-0")
    expect(page.locator("#redraw-row")).to_be_hidden()
    assert not any(name.startswith("Composite") for name in read_parameters(create(page, server)[0]).settings)


WRONG = [
    ({"seed": "-5"}, "seed", "whole number"),
    ({"seed": "4 2"}, "seed", "whole number"),
    ({"seed": "9" * 20}, "seed", "eed is"),
    ({"prompt": "  "}, "prompt", "empty"),
    ({"prompt": "a <rax> dog"}, "prompt", "did you mean <rex>"),
    ({"steps": "-3"}, "steps", "teps"),
    ({"steps": "1000000000"}, "steps", "teps"),
    ({"steps": "2.5"}, "steps", "teps"),
    ({"width": "0"}, "width", "idth"),
    ({"height": "99999"}, "height", "eight"),
    ({"pictures": "999"}, "pictures", "ictures"),
    ({"pictures": "-1"}, "pictures", "ictures"),
    ({"guidance": "-1"}, "guidance", "uidance"),
    ({"detail": "7"}, "detail", "etail"),
    ({"upscale": "-2"}, "upscale", "pscale"),
]


def test_wrong_values_are_told_beside_their_field_in_the_words_of_the_page(page: Page) -> None:
    found = []
    page.locator("#finish").evaluate("node => node.open = true")
    for values, field, words in WRONG:
        page.locator("[data-do=clear-form]").evaluate("node => node.click()")
        write(page, **({"prompt": "a <rex> dog"} | values))
        page.click("#generate")
        beside = page.locator(f"[data-field={field}] .problem").first
        try:
            expect(beside).to_contain_text(words)
        except AssertionError:
            found.append((values, [text for text in page.locator(".create .problem").all_inner_texts() if text]))
            continue
        text = beside.inner_text()
        if "_" in text or "valid" in text:
            found.append((values, text))
    assert found == []


def test_a_search_without_result_says_so(page: Page) -> None:
    go(page, "library")
    page.fill("#library-search", "zebra")
    expect(page.locator(".library .none")).to_be_visible()
    page.locator(".library .none").get_by_role("button", name="Show all").click()
    expect(page.locator("#shelf .concept")).to_have_count(2)


def test_a_lost_connection_is_told_and_the_page_goes_on_when_it_is_back(server: Server, visit: Visit) -> None:
    other = visit.another()
    page, errors = other.page, []
    page.on("pageerror", lambda error: errors.append(str(error)))
    write(page, prompt="a <rex> dog", steps=1)
    calls = re.compile("component_server")

    def refuse(route: Route) -> None:
        route.abort("connectionrefused")

    page.route(calls, refuse)
    page.click("#generate")
    expect(page.locator(".create [data-problem='']")).to_contain_text("does not answer")
    expect(page.locator(".lost-note")).to_be_visible()
    page.wait_for_timeout(1500)
    page.unroute(calls, refuse)
    expect(page.locator(".lost-note")).to_be_hidden()
    create(page, server)
    assert errors == []


def test_messages_name_no_folder_of_the_server(server: Server, page: Page) -> None:
    go(page, "train")
    page.locator(".train details summary").first.click()
    page.fill("#train-folder", "concepts/nowhere")
    page.locator("#train-folder").blur()
    told = page.locator(".train [data-problem=photos]")
    expect(told).to_contain_text("no folder concepts/nowhere")
    assert str(server.place) not in told.inner_text()
    go(page, "lab")
    page.click("#fuse-rex")
    page.fill("#fuse-name", "../x")
    page.click("#save-folder")
    beside = page.locator(".lab [data-field=folder] .problem")
    expect(beside).to_contain_text("cannot name a folder")
    page.fill("#fuse-name", "one")
    page.click("#save-folder")
    expect(page.locator("#fuse-saved")).to_have_text("Saved on the server in fused/one")


def test_a_name_that_is_taken_offers_to_replace_it_where_that_is_said(server: Server, page: Page) -> None:
    go(page, "train")
    page.set_input_files("#train-files", sorted((server.place / "photos").iterdir())[:3])
    expect(page.locator(".photo")).to_have_count(3)
    expect(page.locator("#train-replace")).to_be_hidden()
    page.fill("#train-name", "rex")
    page.fill("#train-class", "dog")
    page.click("#start-training")
    expect(page.locator(".train [data-field=name] .problem")).to_contain_text("replace it")
    expect(page.locator("#train-replace")).to_be_visible()


def test_photos_and_captions_are_found_again_after_a_reload(server: Server, visit: Visit, page: Page) -> None:
    go(page, "train")
    page.set_input_files("#train-files", sorted((server.place / "photos").iterdir())[:3])
    expect(page.locator(".photo")).to_have_count(3)
    page.locator(".photo textarea").first.fill("a photo of a <TOK> cat on a sofa")
    visit.open_again()
    go(page, "train")
    expect(page.locator(".photo")).to_have_count(3)
    expect(page.locator(".photo textarea").first).to_have_value("a photo of a <TOK> cat on a sofa")


def test_photos_that_are_none_are_refused_in_words_and_do_not_stay(server: Server, page: Page) -> None:
    go(page, "train")
    page.set_input_files("#train-files", {"name": "note.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"})
    expect(page.locator(".train [data-problem=photos]")).to_contain_text("note.jpg")
    photos = sorted((server.place / "photos").iterdir())
    page.set_input_files("#train-files", photos)
    expect(page.locator(".photo")).to_have_count(len(photos))
    expect(page.locator(".train .warnings li")).to_have_count(0)


def test_on_a_phone_nothing_is_cut_and_a_concept_that_is_pressed_is_seen(server: Server) -> None:
    with visiting(server.url, width=390, height=844) as visit:
        page = visit.page
        page.wait_for_selector("#chip-rex")
        write(page, prompt="a <rex> dog and a <tom> cat on a long and winding road to the sea", steps=1)
        page.click("#add-region")
        create(page, server)
        page.locator("#queue").evaluate("node => node.open = true")
        go(page, "lab")
        for name in ("rex", "tom"):
            page.click(f"#fuse-{name}")
        page.wait_for_selector("#fuse-check table")
        go(page, "library")
        page.click("#shelf [data-name=rex]")
        expect(page.locator("#concept h2")).to_be_in_viewport()
        for width in (390, 320, 768):
            page.set_viewport_size({"width": width, "height": 844})
            for place in PLACES:
                go(page, place)
                page.wait_for_timeout(200)
                assert page.evaluate(TOO_WIDE) == [], (width, place)
