"""Measures the page as a visitor meets it: the figures of docs/results/page.md.

    python tests/app/measuring.py           # the default base and the shipped concepts

Times are of this machine as busy as it is; the load average is told beside them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from axe_playwright_python.sync_playwright import Axe
from browsing import SECONDS, one_browser
from gradio_client import Client
from playwright.sync_api import Page
from serving import serve

from spectral_fusion.base.default import DEFAULT
from spectral_fusion_app.create.draft import Draft

VISITS, PICTURES = 5, 8
LONG = 100  # steps of a picture that takes some seconds
PROMPT = "a <rex> dog and a <tom> cat on the beach"
ROOT = Path(__file__).parents[2]
SHIFTS = """() => { window.shifts = {all: 0, own: 0}; new PerformanceObserver(list => {
  for (const entry of list.getEntries()) {
    shifts.all += entry.value;
    if (!entry.hadRecentInput) shifts.own += entry.value;
  }
}).observe({type: "layout-shift", buffered: true}); }"""
FIRST = "() => performance.getEntriesByType('navigation')[0].responseStart / 1000"


def visit(url: str) -> tuple[Page, dict[str, float]]:
    """A page in a browser that has never been there; seconds from asking to each thing that a visitor waits for."""
    page = one_browser().new_context(viewport={"width": 1440, "height": 1000}).new_page()
    page.set_default_timeout(SECONDS * 1000)
    began, took = time.monotonic(), {}
    page.goto(url, wait_until="commit")
    for what, selector in (("form seen", "#generate"), ("first usable", ".create.ready .chips button")):
        page.wait_for_selector(selector)
        took[what] = time.monotonic() - began
    return page, {"first byte": page.evaluate(FIRST), **took}


def draw(page: Page) -> dict[str, float]:
    """One picture from the click on; seconds to the bar, the first preview and the picture itself."""
    strip = "document.querySelector('.strip [role=option]')?.dataset.name"
    before = page.evaluate(f"{strip} ?? ''")
    began = time.monotonic()
    page.click("#generate")
    took = {}
    for what, condition in (
        ("bar", "!document.querySelector('.bar').hidden"),
        ("first preview", "document.querySelector('.frame img').src.startsWith('data:')"),
        ("picture", f"({strip} ?? '') !== '{before}' && document.querySelector('#cancel').disabled"),
    ):
        page.wait_for_function(condition, polling=20)
        took[what] = time.monotonic() - began
    page.wait_for_timeout(500)
    return took


def by_command(prompt: str, base: str, folder: Path, *more: str) -> float:
    """Seconds that one picture takes the command line: of some more pictures, its start left out."""

    def run(pictures: int) -> float:
        flags = ["--concepts", "rex", "tom", "--base", base, "--library", str(ROOT / "concepts"), "--seed", "1", *more]
        command = [sys.executable, "-m", "spectral_fusion", "generate", prompt, *flags, "-n", str(pictures)]
        began = time.monotonic()
        subprocess.run([*command, "--out", str(folder / "by-command")], check=True, capture_output=True)
        return time.monotonic() - began

    run(1)  # files that are read for the first time
    return (run(1 + PICTURES) - run(1)) / PICTURES


def by_api(url: str, steps: int) -> list[float]:
    """Seconds to each of some pictures, asked of a server that no browser beside it takes the cores from."""
    client, took = Client(url, verbose=False), []
    for _ in range(PICTURES):
        began = time.monotonic()
        client.predict(prompt=PROMPT, seed=1, steps=steps, api_name="/generate")
        took.append(time.monotonic() - began)
    return took


def faults(page: Page) -> int:
    """What axe-core finds in all four places, light and dark."""
    count = 0
    for dark in ("false", "true"):
        page.evaluate(f"document.body.classList.toggle('dark', {dark})")
        for place in ("create", "train", "library", "lab"):
            page.evaluate(f"document.dispatchEvent(new CustomEvent('spectral-fusion:place', {{detail: '{place}'}}))")
            page.wait_for_timeout(1000)  # colours fade
            count += len(Axe().run(page).response["violations"])
    return count


def told(rows: list[dict[str, float]]) -> None:
    for what in rows[0]:
        values = [row[what] for row in rows]
        print(f"| {what} | {median(values):.2f} s ({min(values):.2f} to {max(values):.2f}) |", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--base", DEFAULT, "--library", str(ROOT / "concepts")]
        with serve(Path(folder), *flags, threads=None) as server:
            page, _ = visit(server.url)  # the base loads meanwhile
            page.context.close()
            print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
            visits = []
            for _ in range(VISITS):
                page, took = visit(server.url)
                visits.append(took)
                page.context.close()
            told(visits)
            page, _ = visit(server.url)
            page.evaluate(SHIFTS)
            page.wait_for_timeout(500)
            print(f"| layout shift, load alone | {page.evaluate('window.shifts.own'):.3f} |", flush=True)
            page.click("#f-prompt")
            page.keyboard.type(PROMPT)
            page.wait_for_selector("#weight-tom")
            draws = [draw(page) for _ in range(PICTURES)]
            told(draws)
            page.fill("#f-steps", str(LONG))
            long = [draw(page) for _ in range(PICTURES)]
            told([{f"{what}, {LONG} steps": took for what, took in row.items()} for row in long])
            own, every = page.evaluate("[window.shifts.own, window.shifts.all]")
            print(f"| layout shift, load and {2 * PICTURES} pictures | {own:.3f} (without any excuse: {every:.3f}) |")
            print(f"| violations that axe-core finds, four places, light and dark | {faults(page)} |", flush=True)
            page.context.close()
            plain = {steps: median(by_api(server.url, steps)) for steps in (Draft.steps, LONG)}
        # the server is gone: it would share the cores
        for rows, steps in ((draws, Draft.steps), (long, LONG)):
            command = by_command(PROMPT, DEFAULT, Path(folder), "--steps", str(steps))
            times = [value / command for value in (median(row["picture"] for row in rows), plain[steps])]
            print(
                f"| a picture of {steps} steps by the command line; the page's, and the API's, over it |"
                f" {command:.2f} s; {times[0]:.2f} and {times[1]:.2f} |",
                flush=True,
            )
    print(f"load average {os.getloadavg()[0]:.1f} in the end", flush=True)


if __name__ == "__main__":
    main()
