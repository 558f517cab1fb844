"""Train, Library and Lab in a real browser: the story of a newcomer, from photos to one picture and a LoRA."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browsing import Visit
from playwright.sync_api import Page, expect
from serving import Server

from concepts import make_concept
from spectral_fusion.concept import Library, export_lora
from spectral_fusion.picture import read_parameters
from tiny import tiny_base

pytestmark = pytest.mark.slow


def go(page: Page, place: str) -> None:
    page.get_by_role("tab", name=place).click()


def test_from_photos_to_a_picture_while_the_page_is_loaded_again(server: Server, visit: Visit, page: Page) -> None:
    go(page, "Train")
    photos = sorted((server.place / "photos").iterdir())
    page.set_input_files("#train-files", photos)
    expect(page.locator(".photo")).to_have_count(6)
    expect(page.locator(".advice")).to_contain_text("a good number")
    page.locator(".photo textarea").first.fill("a photo of a <TOK> cat <script>")
    page.get_by_label("Leave 5.png out").click()
    expect(page.locator(".photo")).to_have_count(5)
    page.set_input_files("#train-files", photos[5])
    expect(page.locator(".photo")).to_have_count(6)
    expect(page.locator(".photo textarea").first).to_have_value("a photo of a <TOK> cat <script>")
    page.fill("#train-name", "Rex")
    page.fill("#train-class", "cat")
    page.click("#start-training")
    expect(page.locator("[data-field=name] .problem")).to_contain_text("already")
    page.fill("#train-name", "kit")
    page.click("#train-advanced summary")
    wide = page.locator("#train-advanced .grid").evaluate("node => getComputedStyle(node).gridTemplateColumns")
    assert len(wide.split()) >= 2, "not one narrow column"
    quick = {"steps": "10", "rank": "4", "batch-size": "2", "resolution": "32", "sample-every": "5"}
    quick["distillation-prompts"] = "2"
    for name, value in quick.items():
        page.fill(f"#train-{name}", value)
    page.click("#start-training")
    expect(page.locator("#training-state")).to_contain_text("kit")
    visit.open_again()
    go(page, "Train")
    expect(page.locator("#training-state")).to_contain_text("kit")
    page.wait_for_selector("#training-state[data-kind=finished]", timeout=600_000)
    expect(page.locator("#training-samples img").first).to_be_visible()
    expect(page.locator(".thumbs img")).to_have_count(6)
    page.locator(".watch details summary").click()
    expect(page.locator("#loss-curve svg")).to_be_visible()
    visit.open_again()
    go(page, "Train")
    page.evaluate("for (let i = 0; i < 4; i++) document.dispatchEvent(new CustomEvent('spectral-fusion:library'))")
    page.locator("#training-samples figure").nth(1).wait_for()
    page.wait_for_timeout(3000)
    expect(page.locator("#training-samples figure")).to_have_count(2)
    (captions,) = (server.place / "out" / "trainings").glob("*/images/001.txt")
    assert captions.read_text(encoding="utf-8") == "a photo of a <TOK> cat <script>"
    page.click("#open-trained")
    expect(page.locator("#f-prompt")).to_have_value("a photo of a <kit> cat")
    page.click("#chip-rex")
    page.fill("#f-steps", "1")
    page.click("#add-region")
    page.click("#add-region")
    page.click("#generate")
    expect(page.locator(".strip [role=option]")).to_have_count(1)
    assert Library(server.place / "concepts").info("kit").class_word == "cat"


def test_a_training_that_fails_says_so_in_red_and_can_be_removed(server: Server, page: Page) -> None:
    folder = server.place / "out" / "trainings" / "20200101-000000-000000-old"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text("{", encoding="utf-8")
    go(page, "Train")
    page.locator(f".list [data-id='{folder.name}']").click()
    expect(page.locator(".watch .error")).to_contain_text("cannot be read")
    colour = page.locator(".watch .error").evaluate("node => getComputedStyle(node).color")
    assert colour == "rgb(185, 28, 28)"
    expect(page.locator("#resume-training")).to_be_hidden()
    page.click("#remove-training")
    expect(page.locator(f".list [data-id='{folder.name}']")).to_have_count(0)


def test_a_broken_file_is_refused_in_words_and_a_good_one_is_imported(
    server: Server, page: Page, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no concept")
    good = make_concept(tiny_base(), "sue", band=3).save(tmp_path / "sue.safetensors")
    go(page, "Library")
    page.set_input_files("#import-file", broken)
    expect(page.locator("[data-problem=import]")).to_contain_text("roken.safetensors")
    expect(page.locator("#shelf [data-name=rex]")).to_be_visible()
    page.set_input_files("#import-file", good)
    expect(page.locator("#shelf [data-name=sue]")).to_be_visible()
    expect(page.locator("#bands svg title").filter(has_text="sue")).to_have_count(1)
    page.fill("#library-search", "sue")
    expect(page.locator("#shelf .concept")).to_have_count(1)


def test_a_lora_of_another_program_is_dropped_and_drawn_with(server: Server, page: Page, tmp_path: Path) -> None:
    lora = export_lora({make_concept(tiny_base(), "soft", band=6): 1.0}, tmp_path / "soft light.safetensors", "kohya")
    go(page, "Library")
    page.set_input_files("#import-file", lora)
    expect(page.locator("#shelf [data-name=soft_light]")).to_contain_text("LoRA")
    expect(page.locator("#concept h2")).to_have_text("soft_light")
    expect(page.locator("#concept-trigger")).to_be_hidden()
    page.click("#open-concept")
    expect(page.locator(".card [aria-label='Weight of soft_light']")).to_be_visible()
    page.fill("#f-prompt", "a dog")
    page.fill("#f-steps", "1")
    before = len(server.pictures)
    page.click("#generate")
    expect(page.locator(".strip [role=option]")).to_have_count(before + 1)
    assert read_parameters(server.pictures[-1]).weights == {"soft_light": 1.0}
    go(page, "Library")
    page.click("#delete-concept")
    expect(page.locator("#shelf [data-name=soft_light]")).to_have_count(0)


def test_a_concept_is_renamed_exported_deleted_and_brought_back(server: Server, page: Page) -> None:
    library = Library(server.place / "concepts")
    go(page, "Library")
    page.click("#shelf [data-name=tom]")
    expect(page.locator("#concept .sub")).to_contain_text("<tom>")
    page.fill("#concept-name", "REX")
    page.click("#rename-concept")
    expect(page.locator("[data-field=name] .problem").last).to_contain_text("already")
    page.fill("#concept-name", "tim")
    page.click("#rename-concept")
    expect(page.locator("#concept h2")).to_have_text("tim")
    expect(page.locator("#shelf [data-name=tom]")).to_have_count(0)
    assert (library.info("tim").name, library.info("tim").trigger) == ("tim", "<tom>")
    page.fill("#concept-trigger", "<tommy>")
    page.click("#retrigger-concept")
    expect(page.locator("#concept .sub")).to_contain_text("<tommy>")
    assert library.info("tim").trigger == "<tommy>"
    go(page, "Create")
    expect(page.locator("#chip-tim")).to_be_visible()
    go(page, "Library")
    page.fill("#concept-name", "tom")
    page.click("#rename-concept")
    expect(page.locator("#concept h2")).to_have_text("tom")
    page.select_option("#concept-format", "concept")
    page.click("#export-concept")
    with page.expect_download() as download:
        page.locator("#exported a").first.click()
    assert download.value.suggested_filename == "tom.safetensors"
    page.click("#delete-concept")
    expect(page.locator("#shelf [data-name=tom]")).to_have_count(0)
    page.locator("#bin").get_by_role("button", name="Bring back").first.click()
    expect(page.locator("#shelf [data-name=tom]")).to_be_visible()
    library.rename("tom", "<tom>")


def test_concepts_are_fused_and_saved(server: Server, page: Page) -> None:
    go(page, "Library")
    room = re.compile(r"room for \d+ more")
    expect(page.locator("#bands")).to_have_text(room)
    left = room.search(page.inner_text("#bands"))
    go(page, "Lab")
    for name in ("rex", "tom"):
        page.click(f"#fuse-{name}")
    expect(page.locator("#fuse-check")).to_contain_text(left.group() if left else "")
    expect(page.locator("#fuse-check .good")).to_contain_text("go together")
    expect(page.locator("#fuse-check .much")).to_have_count(0)
    page.fill("#fuse-weight-tom", "0.5")
    page.click("#save-folder")
    expect(page.locator("#fuse-saved")).to_have_text("Saved on the server in fused/fused")
    record = (server.place / "out" / "fused" / "fused" / "spectral_fusion.json").read_text(encoding="utf-8")
    assert "rex 1, tom 0.5" in record
    page.click("#save-lora")
    expect(page.locator("#fused-files a")).to_have_count(3)
    page.click("#save-folder")
    expect(page.locator("[data-field=folder] .problem")).to_contain_text("exists already")
    for name in ("rex", "tom"):
        page.click(f"#fuse-{name}")
    page.click("#evaluate")
    expect(page.locator("[data-problem=evaluate]")).to_contain_text("two or more")
    assert page.locator(".toast-wrap *, span.error").filter(visible=True).count() == 0, "it is said in its place alone"


def test_a_report_is_as_tall_as_what_is_in_it_and_no_taller_a_second_later(server: Server, page: Page) -> None:
    folder = server.place / "out" / "evaluations" / "20260101-000000-000000"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text('{"names": ["rex", "tom"]}', encoding="utf-8")
    lines = "<p>rex and tom</p>" * 60
    (folder / "report.html").write_text(f"<!doctype html><body>{lines}</body>", encoding="utf-8")
    go(page, "Lab")
    frame = page.locator("#report iframe")
    page.frame_locator("#report iframe").locator("p").first.wait_for()
    page.wait_for_timeout(300)
    height = frame.evaluate("frame => frame.offsetHeight")
    inside = frame.evaluate("frame => frame.contentDocument.documentElement.offsetHeight")
    assert inside > 1000
    assert inside <= height <= inside + 20
    page.wait_for_timeout(1000)
    assert frame.evaluate("frame => frame.offsetHeight") == height, "it grows by itself"
