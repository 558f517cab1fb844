"""What goes wrong, in a real browser: it is said beside its field, in the page's own words, and nothing is lost."""

from __future__ import annotations

import io
import json
import re
import resource

import pytest
from browsing import Visit
from creating import create, idle, write
from PIL import Image
from playwright.sync_api import Page, expect
from serving import Server

from concepts import make_concept
from spectral_fusion.concept import Library
from spectral_fusion.picture import read_parameters
from tiny import tiny_base

pytestmark = pytest.mark.slow


def go(page: Page, place: str) -> None:
    page.get_by_role("tab", name=place).click()


def png(colour: str) -> dict[str, object]:
    """A photo of a phone: they all have one name."""
    data = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(data, "PNG")
    return {"name": "image.png", "mimeType": "image/png", "buffer": data.getvalue()}


def test_photos_of_one_name_keep_their_own_captions_and_one_of_them_goes_alone(page: Page) -> None:
    go(page, "Train")
    for colour in ("red", "green", "blue"):
        page.set_input_files("#train-files", png(colour))
        page.wait_for_timeout(300)
    expect(page.locator(".photo")).to_have_count(3)
    for number, text in enumerate(("one", "two", "three")):
        page.locator(".photo textarea").nth(number).fill(text)
    page.get_by_label("Leave image (2).png out").click()
    expect(page.locator(".photo")).to_have_count(2)
    captions = page.locator(".photo textarea").evaluate_all("all => all.map(one => one.value)")
    assert captions == ["one", "three"]


def test_a_mistake_is_no_longer_marked_once_it_is_mended(server: Server, page: Page) -> None:
    go(page, "Train")
    page.set_input_files("#train-files", sorted((server.place / "photos").iterdir())[0])
    expect(page.locator(".photo")).to_have_count(1)
    page.fill("#train-name", "zoe")
    page.click("#start-training")
    beside = page.locator(".train [data-field=class] .problem")
    expect(beside).to_contain_text("kind")
    page.fill("#train-class", "cat")
    expect(beside).to_be_hidden()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("steps", "0", "give 1 to 150"),
        ("steps", "151", "give 1 to 150"),
        ("width", "2048", "give 8 to 1024"),
        ("pictures", "37", "give 1 to 36"),
        ("seed", "1e3", "whole number"),
    ],
)
def test_a_number_out_of_range_is_told_with_the_range_of_the_page(
    page: Page, field: str, value: str, words: str
) -> None:
    write(page, prompt="a dog", **{field: value})
    page.click("#generate")
    expect(page.locator(f"[data-field={field}] .problem")).to_contain_text(words)


def test_a_full_disk_is_told_and_the_page_goes_on_when_there_is_room(server: Server, page: Page) -> None:
    write(page, prompt="a <rex> dog", steps=1)
    created = len(server.pictures)
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, most))
    try:
        page.click("#generate")
        expect(page.locator(".create [data-problem='']")).to_contain_text("make room")
        expect(page.locator(".status")).to_have_text("Nothing was made.")
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))
    assert len(server.pictures) == created
    create(page, server)


def test_a_base_that_cannot_be_reached_is_told_beside_its_name_and_the_loaded_one_stays(
    server: Server, page: Page
) -> None:
    page.click("#base")
    page.fill("#base-name", "nosuch/model-at-all")
    page.click("#load-base")
    beside = page.locator(".bases .problem")
    expect(beside).to_contain_text(re.compile("nosuch/model-at-all"))
    expect(page.locator("#load-base")).to_be_enabled()
    page.fill("#base-name", "")
    page.click("#load-base")
    expect(beside).to_be_visible()
    page.click("#leave-base")
    expect(page.locator("#status")).to_have_text(re.compile("ready$"))
    page.click("#base")
    expect(beside).to_be_hidden()
    page.click("#leave-base")
    write(page, prompt="a <rex> dog", steps=1)
    create(page, server)


def test_two_who_change_one_concept_are_told_what_the_other_has_done(server: Server, visit: Visit, page: Page) -> None:
    library = Library(server.place / "concepts")
    library.add(make_concept(tiny_base(), "sue", band=5))
    go(page, "Library")
    page.click("#shelf [data-name=sue]")
    other = visit.another()
    go(other.page, "Library")
    other.page.click("#shelf [data-name=sue]")
    other.page.fill("#concept-name", "ann")
    page.fill("#concept-trigger", "<susan>")
    other.page.click("#rename-concept")
    expect(other.page.locator("#concept h2")).to_have_text("ann")
    expect(page.locator("#shelf [data-name=sue]")).to_have_count(0)
    expect(page.locator("#shelf [data-name=ann]")).to_be_visible()
    expect(page.locator("[data-problem=gone]")).to_contain_text("Sue is not here any more")
    expect(page.locator("#concept")).to_be_hidden()
    assert library.info("ann").trigger == "<sue>"
    assert other.said == []
    library.remove("ann")


def test_what_is_done_to_a_finished_picture_is_named_in_the_queue_and_its_variations_are_others(
    server: Server, page: Page
) -> None:
    write(page, prompt="a <rex> dog", steps=4, width=64, height=64)
    [plain] = create(page, server)
    page.click("#upscale")
    page.locator("#queue").evaluate("node => node.open = true")
    expect(page.locator("#queue .name").first).to_have_text("Upscale: a <rex> dog")
    idle(page)
    enlarged = server.pictures[-1]
    page.click(f".strip [data-name='{enlarged.name}']")
    before = set(server.pictures)
    page.click("#variations")
    page.wait_for_function(f"document.querySelectorAll('.strip [role=option]').length >= {len(before) + 4}")
    idle(page)
    made = sorted(set(server.pictures) - before)
    settings = [read_parameters(picture).settings for picture in made]
    assert len(made) == 4
    assert all("Init image" not in one for one in settings), "drawn anew, not enlarged four times"
    assert len({one["Seed"] for one in settings} | {read_parameters(plain).settings["Seed"]}) == 5


def test_a_chip_that_is_pressed_again_takes_its_concept_out(page: Page) -> None:
    page.click("#chip-rex")
    page.click("#chip-tom")
    expect(page.locator("#f-prompt")).to_have_value("a photo of a <rex> dog and a <tom> dog")
    expect(page.locator("#chip-tom")).to_have_attribute("aria-pressed", "true")
    page.click("#chip-rex")
    expect(page.locator("#f-prompt")).to_have_value("a photo of a <tom> dog")
    expect(page.locator("#chip-rex")).to_have_attribute("aria-pressed", "false")
    page.click("#chip-tom")
    expect(page.locator("#f-prompt")).to_have_value("")


def test_a_preset_is_named_in_the_page_and_taken_again(page: Page) -> None:
    page.click("#presets summary")
    page.click("[data-do=save-preset]")
    expect(page.locator("[data-field=preset] .problem")).to_contain_text("no name")
    write(page, steps=7)
    page.fill("#preset-name", "quick look")
    page.press("#preset-name", "Enter")
    write(page, steps=9)
    page.get_by_role("button", name="quick look", exact=True).click()
    expect(page.locator("#f-steps")).to_have_value("7")


def test_addresses_of_pictures_do_not_tell_where_the_server_keeps_them(server: Server, page: Page) -> None:
    write(page, prompt="a dog", steps=1)
    [picture] = create(page, server)
    shown = f"shown/pictures/{picture.name}"
    expect(page.locator(".frame img")).to_have_attribute("src", shown)
    assert page.evaluate("src => fetch(src).then(answer => answer.status)", shown) == 200
    kept = "() => [...document.querySelectorAll('[src], [href]')].map(node => node.src || node.href).join('\\n')"
    assert str(server.place) not in page.evaluate(kept)


def test_no_more_regions_than_the_page_allows_and_each_is_named_by_another_concept(page: Page) -> None:
    write(page, prompt="a <tom> cat and a <rex> dog")
    for _ in range(9):
        page.click("#add-region")
    expect(page.locator(".region-row")).to_have_count(8)
    expect(page.locator("[data-problem=regions]")).to_contain_text("8 regions are the most")
    assert page.locator(".region .tag").all_inner_texts()[:2] == ["tom", "rex"]


def test_a_batch_stays_in_the_order_in_which_it_was_made(server: Server, page: Page) -> None:
    write(page, prompt="a <rex> dog", steps=2, pictures=3, seed=40)
    made = create(page, server, pictures=3)
    seeds = [read_parameters(picture).settings["Seed"] for picture in made]
    assert seeds == ["40", "41", "42"]
    names = [picture.name for picture in reversed(made)]
    first = "[...document.querySelectorAll('.strip [role=option]')].slice(0, 3).map(one => one.dataset.name)"
    page.wait_for_function(f"JSON.stringify({first}) === {json.dumps(json.dumps(names, separators=(',', ':')))}")
    expect(page.locator(".strip [aria-selected=true]")).to_have_attribute("data-name", made[0].name)
    expect(page.locator("#f-seed")).to_have_value("40")


def test_a_grid_that_cannot_be_drawn_is_refused_before_anything_is_made(server: Server, page: Page) -> None:
    before = server.pictures
    write(page, prompt="a <rex> dog", steps=1)
    page.click("#grid summary")
    page.select_option("#grid-0", "weights")
    page.fill("#grid-values-0", "-1e9, nan")
    page.click("#generate")
    expect(page.locator("[data-problem=grid]")).not_to_be_empty()
    write(page, prompt="a <nobody> dog")
    page.click("#generate")
    expect(page.locator("#e-prompt")).to_contain_text("<nobody>")
    expect(page.locator("#f-seed")).to_have_value("")
    assert server.pictures == before
