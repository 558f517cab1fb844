"""Takes pictures of every tab, light and dark, as on a desk and on a phone, into docs/screenshots.

    python docs/screenshots.py              # toybox and the shipped concepts
    python docs/screenshots.py --library concepts --base toybox --steps 25

Starts a server of its own in a folder that is thrown away, makes a picture with two concepts and a box each, and needs
Chromium and playwright (`pip install -e .[dev]`).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer
from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent / "screenshots"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDTHS = {1440: 1000, 390: 844}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
TABS = {"generate": "Generate", "train": "Train", "concepts": "Concepts", "fuse": "Fuse and compare"}
TALLEST = 2400
SECONDS = 60.0


@contextmanager
def serve(base: str, library: Path) -> Iterator[str]:
    """The address of a page of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    with TemporaryDirectory() as out:
        flags = ["--port", str(port), "--out", out, "--base", base, "--library", str(library)]
        process = subprocess.Popen([sys.executable, "-m", "spectral_fusion", "app", *flags])
        try:
            wait_for(url)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def wait_for(url: str) -> None:
    """Until the page is there."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def make_picture(page: Page, steps: int) -> None:
    """Two concepts, a box each, one picture."""
    chips = page.locator(".chips button")
    chips.first.wait_for()
    for number in range(min(2, chips.count())):
        chips.nth(number).click()
        page.locator(".card").nth(number).wait_for()
    field = page.locator("#steps input[type=number]")
    field.fill(str(steps))
    field.press("Tab")
    page.click("#boxes > button")
    canvas = page.locator("#canvas canvas")
    for number, left in enumerate((0.06, 0.54)):
        canvas.scroll_into_view_if_needed()
        area = canvas.bounding_box()
        assert area
        x, y = area["x"] + left * area["width"], area["y"] + 0.15 * area["height"]
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 0.2 * area["width"], y + 0.4 * area["height"])
        page.mouse.move(x + 0.4 * area["width"], y + 0.7 * area["height"])
        page.mouse.up()
        page.wait_for_selector(f"#region-{number}")
    page.click("#generate")
    page.wait_for_selector("#results img")
    page.wait_for_function("!document.querySelector('#generate').disabled")


def fill(page: Page, tab: str, library: Path) -> None:
    """What a visitor would give a tab: pictures to train on, concepts to compare."""
    if tab == "train":
        pictures = sorted(library.glob("*/images/??.png"))[:4]
        page.locator("#train-files input[type=file]").set_input_files(pictures)
        page.locator(".photo").nth(len(pictures) - 1).wait_for()
    if tab == "fuse":
        for number in range(3):
            page.locator("#fuse-concepts input").click()
            page.get_by_role("option").nth(number).click()
        page.keyboard.press("Escape")
        page.locator("#fuse-check .heat").wait_for()


def shoot(page: Page, name: str) -> None:
    """One screenshot of the whole page, in few colours so that it stays small."""
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(800)
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as image:
        image.crop((0, 0, image.width, min(image.height, TALLEST))).quantize(128).save(path, optimize=True)
    typer.echo(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def main(
    base: Annotated[str, typer.Option(help="As of spectral-fusion app.")] = "toybox",
    library: Annotated[Path, typer.Option(help="Folder of concepts.")] = Path("concepts"),
    steps: Annotated[int, typer.Option(help="Denoising steps of the picture.")] = 25,
) -> None:
    """Take all of them."""
    FOLDER.mkdir(exist_ok=True)
    with serve(base, library.resolve()) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for width, height in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(SECONDS * 1000)
            page.goto(url)
            page.wait_for_selector(".state.ready")
            make_picture(page, steps)
            for tab, label in TABS.items():
                if width == min(WIDTHS) and not page.get_by_role("tab", name=label, exact=True).is_visible():
                    page.locator(".overflow-menu > button").click()
                    page.locator(".overflow-dropdown").get_by_text(label, exact=True).click()
                else:
                    page.get_by_role("tab", name=label, exact=True).click()
                fill(page, tab, library)
                for scheme in SCHEMES:
                    page.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
                    shoot(page, f"{tab}-{scheme}-{width}")
            page.close()
        browser.close()


if __name__ == "__main__":
    typer.run(main)
