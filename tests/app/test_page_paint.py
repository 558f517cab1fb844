"""What an artist does with a picture in Create, in a real browser: start from it, paint, edit, refine, upscale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import Visit
from creating import create, drag, idle, write
from PIL import Image
from playwright.sync_api import Page, expect
from serving import Server, make_place, serve

from spectral_fusion.base.default import DETAIL
from spectral_fusion.base.painted import mask_tensor
from spectral_fusion.picture import read_parameters
from tiny import tiny_base, tiny_controlnet

pytestmark = pytest.mark.slow
RED = (200, 30, 60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a ControlNet that visitors may name."""
    place = make_place(tmp_path_factory.mktemp("page"))
    tiny_controlnet(tiny_base().unet).save_pretrained(place / "models" / "edges")
    with serve(place, "--root", "models") as server:
        yield server


def pixels(picture: Path) -> np.ndarray:
    return np.asarray(Image.open(picture).convert("RGB")).astype(int)


def test_a_picture_is_started_from_and_changes_where_it_is_painted(
    server: Server, visit: Visit, page: Page, tmp_path: Path
) -> None:
    Image.new("RGB", (96, 64), RED).save(tmp_path / "red.png")
    write(page, prompt="a dog", steps=4, width=64, height=64)
    page.click("#start summary")
    page.set_input_files("#start-file", tmp_path / "red.png")
    expect(page.locator(".start-row img")).to_be_visible()
    page.locator("#f-strength").fill("1")
    expect(page.locator("#strength-words")).to_have_text("100 %, everything")
    page.click("#paint-start")
    page.locator("#brush-size").fill("20")
    page.locator("#brush-soft").fill("0")
    drag(page, 0.2, 0.1, 0.2, 0.9)
    drag(page, 0.8, 0.1, 0.8, 0.9)
    page.click("#undo-paint")
    page.keyboard.press("Escape")
    expect(page.locator(".brush")).to_be_hidden()
    [picture] = create(page, server)
    made = pixels(picture)
    assert (made[:, 32:] == RED).all(), "nothing is painted there: the second stroke was taken back"
    assert np.abs(made[20:44, 10:16] - RED).mean() > 5
    visit.open_again()
    expect(page.locator("#start .count")).to_have_text("(1)")
    page.locator("[data-do=clear-form]").evaluate("node => node.click()")
    expect(page.locator(".start-row")).to_be_hidden()
    page.click("#reuse")
    expect(page.locator("#strength-words")).to_have_text("100 %, everything")
    [again] = create(page, server)
    assert (pixels(again) == made).all()


def test_a_control_picture_guides_and_comes_back_with_its_picture(
    server: Server, visit: Visit, page: Page, tmp_path: Path
) -> None:
    Image.new("RGB", (96, 64), RED).save(tmp_path / "red.png")
    write(page, prompt="a dog", steps=2, width=64, height=64, seed=5)
    [plain] = create(page, server)
    expect(page.locator("#control")).not_to_have_attribute("open", "")
    page.click("#control summary")
    page.set_input_files("#control-file", tmp_path / "red.png")
    expect(page.locator(".control-row img")).to_be_visible()
    expect(page.locator("#f-control-model")).to_have_value("models/edges")
    page.locator("#f-control-scale").fill("0.5")
    expect(page.locator("#control-words")).to_have_text("50 %")
    [picture] = create(page, server)
    assert np.abs(pixels(picture) - pixels(plain)).mean() > 0.5
    assert read_parameters(picture).settings["Control scale"] == "0.5"
    visit.open_again()
    expect(page.locator("#control .count")).to_have_text("(1)")
    page.click("#forget-control")
    expect(page.locator(".control-row")).to_be_hidden()
    page.click("#reuse")
    expect(page.locator("#f-control-model")).to_have_value("edges")
    page.fill("#f-control-model", "nowhere")
    page.click("#generate")
    expect(page.locator("[data-problem=control]")).to_contain_text("does not exist")


def test_a_region_is_painted_erased_and_found_again_in_its_picture(server: Server, visit: Visit, page: Page) -> None:
    write(page, prompt="a <rex> dog", steps=1, width=64, height=64)
    page.click("#add-region")
    page.click("#region-paint-0")
    expect(page.locator(".brush .what")).to_have_text("rex")
    page.locator("#brush-size").fill("40")
    drag(page, 0.3, 0.3, 0.3, 0.7)
    page.keyboard.press("e")
    page.locator("#brush-soft").fill("0")
    drag(page, 0.1, 0.7, 0.5, 0.7)
    page.click("#done-paint")
    expect(page.locator("#region-place-0")).to_have_value("paint")
    expect(page.locator(".paints canvas")).to_have_count(1)
    [picture] = create(page, server)
    [region] = json.loads(read_parameters(picture).settings["Regions"])
    mask = mask_tensor(region["mask"])
    assert mask.shape == (128, 128)
    assert mask[38, 38] == 1
    assert 0 < mask[38, 38 + 20] < 1, "its edge is soft"
    assert mask[90].max() == 0, "erased"
    assert mask[:, 80:].max() == 0
    visit.open_again()
    expect(page.locator(".paints canvas")).to_have_count(1)
    tinted = "canvas => canvas.getContext('2d').getImageData(38, 38, 1, 1).data[3]"
    page.wait_for_function(f"({tinted})(document.querySelector('.paints canvas')) > 100")
    page.select_option("#region-place-0", "box")
    expect(page.locator(".paints canvas")).to_have_count(0)
    expect(page.get_by_label("left %")).to_be_visible()
    page.click("#reuse")
    expect(page.locator("#region-place-0")).to_have_value("paint")


def test_a_finished_picture_is_edited_refined_and_upscaled(server: Server, page: Page) -> None:
    page.locator("[data-do=clear-form]").evaluate("node => node.click()")
    write(page, prompt="a <rex> dog", steps=4, width=64, height=64)
    [plain] = create(page, server)
    page.click("#refine")
    expect(page.locator("[data-problem=tools]")).to_contain_text("mark the subjects by regions")
    page.click("#upscale")
    expect(page.locator(".status")).to_contain_text("128 \u00d7 128")
    idle(page)
    assert pixels(server.pictures[-1]).shape == (128, 128, 3)
    page.click("#add-region")
    page.get_by_label("right %").fill("25")
    page.get_by_label("bottom %").fill("25")
    page.click("#refine")
    expect(page.locator(".strip [role=option]").first).to_have_attribute("aria-selected", "true")
    page.wait_for_function(f"document.querySelectorAll('.strip [role=option]').length >= {len(server.pictures) + 1}")
    idle(page)
    before, after = server.pictures[-2:]
    assert read_parameters(after).settings["Detail strength"] == f"{DETAIL:g}", "as evaluations do it"
    assert (pixels(after)[:, 120:] == pixels(before)[:, 120:]).all(), "away from the region it is the same picture"
    page.locator(f".strip [data-name='{plain.name}']").click()
    page.click("#edit")
    expect(page.locator(".brush .what")).to_have_text("Where it may change")
    expect(page.locator("#f-width")).to_have_value("64")
    drag(page, 0.2, 0.2, 0.2, 0.8)
    page.locator("#f-prompt").fill("a cat")
    [edited] = create(page, server)
    assert (pixels(edited)[:, 40:] == pixels(plain)[:, 40:]).all()
    assert (pixels(edited) != pixels(plain)).any()
