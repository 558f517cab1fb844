"""Takes pictures of every place in every state, from a phone to a wide screen, light and dark, into docs/screenshots.

    python docs/screenshots.py                                          # what is not there yet
    python docs/screenshots.py --again --places create train            # these anew
    python docs/screenshots.py --states error --widths 390 --schemes dark

Starts servers of its own in a folder that is thrown away, on a copy of the shipped concepts, and does in each place
what leads to its states: empty, first, busy, done, error. Needs Chromium and playwright (`pip install -e .[dev]`).
"""

from __future__ import annotations

import io
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

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from screenshot_states import LONG, PLACES, STATES, Visitor, way_to

FOLDER = Path(__file__).parent / "screenshots"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HEIGHTS = {390: 844, 768: 1000, 1440: 1000, 2560: 1400}
SCHEMES = ("light", "dark")
TALLEST = 2400
WIDEST = 1440  # px of a kept picture
QUALITY = 33
Shot = tuple[int, str, Path]
"""Width, scheme and file of a picture."""
Lengths = tuple[int, int]
"""Steps of the training and of the comparison that are waited for."""
MOST = 6_000_000  # bytes of the whole folder: 160 pictures of 34 kB, and some room
SECONDS = 180.0


@contextmanager
def serve(base: str, library: Path, out: Path) -> Iterator[str]:
    """The address of a page of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    flags = ["--port", str(port), "--out", str(out), "--base", base, "--library", str(library)]
    process = subprocess.Popen([sys.executable, "-m", "spectral_fusion", "app", *flags])
    try:
        wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def wait_for(url: str) -> None:
    """Until the page is there."""
    until = time.monotonic() + 4 * SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def open_page(browser: Browser, url: str, place: str) -> Page:
    """A visit of its own, at a place, once the base is there."""
    page = browser.new_context(viewport={"width": 1440, "height": HEIGHTS[1440]}).new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.goto(url)
    page.wait_for_selector(".state.ready", timeout=LONG)
    page.wait_for_selector(".create.ready")
    page.click(f"#tab-{place}-button")
    return page


def shoot(page: Page, path: Path) -> None:
    """One screenshot of the whole page, as a small file."""
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(500)
    part = path.with_suffix(".part")
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as image:
        shown = image.convert("RGB").crop((0, 0, image.width, min(image.height, TALLEST)))
    shown.thumbnail((WIDEST, TALLEST))
    shown.save(part, "WEBP", quality=QUALITY, method=6)
    part.replace(path)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def wanted(
    places: list[str], states: list[str], widths: list[int], schemes: list[str], *, again: bool
) -> dict[tuple[str, str], list[Shot]]:
    """(state, place) -> width, scheme and file of each picture that is to be taken, states in their order."""
    found: dict[tuple[str, str], list[Shot]] = {}
    for state in STATES:
        for place in PLACES:
            shots = [
                (width, scheme, FOLDER / f"{place}-{state}-{width}-{scheme}.webp")
                for width in widths
                for scheme in schemes
            ]
            left = [shot for shot in shots if again or not shot[2].exists()]
            if left and state in states and place in places:
                found[state, place] = left
    return found


def take(browser: Browser, url: str, library: Path, state: str, place: str, shots: list[Shot], steps: Lengths) -> None:
    """One place in one state, in all widths and schemes."""
    page = open_page(browser, url, place)
    visitor = Visitor(page, library, *steps)
    try:
        way_to(visitor, place, state)()
        for width, scheme, path in shots:
            page.set_viewport_size({"width": width, "height": HEIGHTS[width]})
            if page.evaluate("document.body.classList.contains('dark')") != (scheme == "dark"):
                page.click("#scheme")
                page.mouse.move(0, 0)
            shoot(page, path)
        page.set_viewport_size({"width": 1440, "height": HEIGHTS[1440]})
        visitor.calm(place)
    finally:
        page.context.close()


def main(
    places: list[str],
    states: list[str],
    widths: list[int],
    schemes: list[str],
    *,
    again: bool,
    base: str,
    library: Path,
    steps: Lengths,
) -> int:
    """Take what is asked for; returns how many states failed. One that fails does not keep the others back."""
    FOLDER.mkdir(exist_ok=True)
    asked, failed = wanted(places, states, widths, schemes, again=again), 0
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for empty in (True, False):
            own = Path(folder) / ("empty" if empty else "full") / "concepts"
            own.mkdir(parents=True) if empty else shutil.copytree(library, own)
            todo = {key: shots for key, shots in asked.items() if (key[0] == "empty") == empty}
            if not todo:
                continue
            with serve(base, own, own.parent / "out") as url:
                for (state, place), shots in todo.items():
                    try:
                        take(browser, url, own, state, place, shots, steps)
                    except Exception as error:  # the next state may go well; the run ends with an error all the same
                        failed += 1
                        print(f"{place}-{state}: {str(error).splitlines()[0][:300]}", file=sys.stderr, flush=True)
        browser.close()
    size = sum(path.stat().st_size for path in FOLDER.glob("*.webp"))
    print(f"{size / 1e6:.1f} MB in {FOLDER}" + (f", more than {MOST / 1e6:.0f}" if size > MOST else ""))
    return failed


if __name__ == "__main__":
    from argparse import ArgumentParser

    parser = ArgumentParser(description="Take screenshots of the page; those that are there are kept.")
    for name, every in (("places", PLACES), ("states", STATES), ("schemes", SCHEMES)):
        parser.add_argument(f"--{name}", nargs="+", choices=every, default=list(every))
    parser.add_argument("--widths", nargs="+", type=int, choices=list(HEIGHTS), default=list(HEIGHTS))
    parser.add_argument("--again", action="store_true", help="also what is there")
    parser.add_argument("--base", default="toybox128", help="as of spectral-fusion app")
    parser.add_argument("--library", type=Path, default=Path("concepts"), help="folder of concepts")
    parser.add_argument("--train-steps", type=int, default=200, help="of the training that is waited for")
    parser.add_argument("--compare-steps", type=int, default=20, help="of the comparison that is waited for")
    given = vars(parser.parse_args())
    lengths = (given.pop("train_steps"), given.pop("compare_steps"))
    sys.exit(main(**given, steps=lengths) > 0)
