"""Train, Concepts and Fuse in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Visit, visiting
from playwright.sync_api import Page, expect
from serving import Server, make_place, serve
from test_server import client, wait_until_ready

from concepts import make_concept
from spectral_fusion.concept import Library
from tiny import tiny_base
from training import draw_photos

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = make_place(tmp_path_factory.mktemp("server"))
    draw_photos(place / "photos", count=6)
    with serve(place) as server:
        wait_until_ready(client(server))
        yield server


@pytest.fixture
def visit(server: Server) -> Iterator[Visit]:
    with visiting(server.url) as visit:
        yield visit


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page


def go(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab).click()


def field(page: Page, name: str) -> str:
    return f"#{name} :is(input, textarea)"


def test_a_concept_is_trained_from_dropped_pictures_while_the_page_is_loaded_again(
    server: Server, visit: Visit, page: Page
) -> None:
    go(page, "Train")
    page.set_input_files("#train-files input[type=file]", sorted((server.place / "photos").iterdir()))
    expect(page.locator(".photo")).to_have_count(6)
    page.locator(".photo textarea").first.fill("a photo of a <TOK> cat <script>")
    page.fill(field(page, "train-name"), "kit")
    page.fill(field(page, "train-class"), "cat")
    page.get_by_text("Advanced").click()
    quick = {"steps": "20", "rank": "4", "batch-size": "2", "resolution": "32", "sample-every": "10"}
    for name, value in quick.items():
        page.fill(field(page, f"train-{name}"), value)
    page.click("#start-training")
    page.wait_for_selector("#training-state [data-kind]")
    visit.open_again()
    go(page, "Train")
    expect(page.locator("#training-state")).to_contain_text("kit")
    page.wait_for_selector("#training-state [data-kind=finished]", timeout=240_000)
    expect(page.locator("#loss-curve svg")).to_be_visible()
    expect(page.locator("#training-samples img").first).to_be_visible()
    (captions,) = (server.place / "out" / "trainings").glob("*/images/001.txt")
    assert captions.read_text(encoding="utf-8") == "a photo of a <TOK> cat <script>"
    page.click("#open-trained")
    expect(page.locator("#prompt textarea")).to_have_value("a photo of a <kit> cat")
    assert Library(server.place / "concepts").info("kit").class_word == "cat"


def test_what_is_wrong_with_a_training_is_said_in_the_page(page: Page) -> None:
    go(page, "Train")
    page.fill(field(page, "train-name"), "<b>kit</b>")
    page.fill(field(page, "train-class"), "cat")
    page.click("#start-training")
    expect(page.get_by_test_id("toast-body")).to_contain_text("no pictures yet")


def test_a_broken_file_is_refused_in_words_and_a_good_one_is_imported(
    server: Server, page: Page, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no concept")
    good = make_concept(tiny_base(), "sue", band=3).save(tmp_path / "sue.safetensors")
    go(page, "Concepts")
    page.set_input_files("#import-file input[type=file]", broken)
    expect(page.locator("#import-file")).to_contain_text("broken")
    page.click("#import")
    expect(page.get_by_test_id("toast-body")).to_contain_text("broken.safetensors")
    expect(page.locator("#shelf [data-name=rex]")).to_be_visible()
    page.get_by_label("Remove").or_(page.get_by_label("Clear")).last.click()
    page.set_input_files("#import-file input[type=file]", good)
    expect(page.locator("#import-file")).to_contain_text("sue")
    page.click("#import")
    expect(page.locator("#shelf [data-name=sue]")).to_be_visible()
    expect(page.locator("#bands svg title").filter(has_text="sue")).to_have_count(1)


def test_a_concept_is_renamed_deleted_and_brought_back(server: Server, page: Page) -> None:
    library = Library(server.place / "concepts")
    go(page, "Concepts")
    page.locator("#shelf [data-name=tom]").click()
    expect(page.locator("#concept-details")).to_contain_text("<tom>")
    page.fill(field(page, "concept-trigger"), "<tommy>")
    page.click("#rename-concept")
    expect(page.locator("#concept-details")).to_contain_text("<tommy>")
    assert library.info("tom").trigger == "<tommy>"
    page.click("#delete-concept")
    expect(page.locator("#shelf [data-name=tom]")).to_have_count(0)
    page.click("#undo-delete")
    expect(page.locator("#shelf [data-name=tom]")).to_be_visible()
    library.rename("tom", "<tom>")


def test_concepts_are_fused_and_exported(server: Server, page: Page) -> None:
    go(page, "Concepts")
    page.locator("#shelf [data-name=rex]").click()
    page.click("#export-concept")
    with page.expect_download() as download:
        page.locator("#exported a").first.click()
    assert download.value.suggested_filename == "rex.safetensors"
    go(page, "Fuse and compare")
    for name in ("rex", "tom"):
        page.locator("#fuse-concepts input").click()
        page.get_by_role("option", name=name).click()
    expect(page.locator("#fuse-check .good")).to_contain_text("room for")
    expect(page.locator("#fuse-check td[style]")).to_have_count(4)
    page.locator("#fuse-weight-tom input[type=number]").fill("0.5")
    page.locator("#fuse-weight-tom input[type=number]").blur()
    page.click("#save-folder")
    expect(page.locator("#fuse-saved .good")).to_contain_text("fused")
    record = (server.place / "out" / "fused" / "fused" / "spectral_fusion.json").read_text(encoding="utf-8")
    assert "rex 1, tom 0.5" in record
    page.click("#save-lora")
    expect(page.locator("#fused-files a")).not_to_have_count(0)
