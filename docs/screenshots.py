"""Takes pictures of every place, light and dark, from a phone to a wide screen, into docs/screenshots.

    python docs/screenshots.py              # toybox and the shipped concepts
    python docs/screenshots.py --library concepts --base toybox

Starts a server of its own in a folder that is thrown away, and makes a picture with two concepts. Needs Chromium and
playwright (`pip install -e .[dev]`).
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
WIDTHS = {1440: 1000, 390: 844, 768: 1000, 2560: 1400}
EVERY_PLACE = (1440, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PLACES = ("create", "train", "library", "lab")
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


def make_picture(page: Page) -> None:
    """The first visit's picture: two examples, a region each."""
    page.click("[data-do=welcome]")
    page.wait_for_selector(".strip [role=option]")
    page.wait_for_function("document.querySelector('#cancel').disabled")
    page.click("#made summary")
    page.wait_for_selector("#made dd")


def edit(page: Page) -> None:
    """The newest picture is started from, and a stroke says where it may change."""
    page.click("#edit")
    page.wait_for_selector(".brush:not([hidden])")
    area = page.locator(".frame").bounding_box()
    assert area
    for number, (x, y) in enumerate(((0.62, 0.3), (0.78, 0.42), (0.74, 0.7))):
        page.mouse.move(area["x"] + x * area["width"], area["y"] + y * area["height"])
        if not number:
            page.mouse.down()
    page.mouse.up()


def fill(page: Page, place: str, library: Path) -> None:
    """What a visitor would give a place: photos to train on, a concept to look at, concepts to compare."""
    if place == "train":
        page.set_input_files("#train-files", sorted(library.glob("*/images/??.png"))[:6])
        page.locator(".photo").nth(5).wait_for()
    if place == "library":
        page.locator("#shelf .concept").first.click()
    if place == "lab":
        for number in range(3):
            page.locator("#fuse-concepts button").nth(number).click()
        page.wait_for_selector("#fuse-check table")


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
            page.wait_for_selector(".create.ready .chips button")
            if page.locator(".welcome").is_visible():
                both(page, f"first-{width}")
                make_picture(page)
            if width in EVERY_PLACE:
                page.click("#tab-create-button")
                edit(page)
                both(page, f"paint-{width}")
                page.click("#done-paint")
                page.click("#reuse")
            for place in PLACES if width in EVERY_PLACE else PLACES[:1]:
                page.click(f"#tab-{place}-button")
                fill(page, place, library)
                both(page, f"{place}-{width}")
            page.close()
        browser.close()


def both(page: Page, name: str) -> None:
    """A place in light and in dark."""
    for scheme in SCHEMES:
        page.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
        shoot(page, f"{name}-{scheme}")


if __name__ == "__main__":
    typer.run(main)
