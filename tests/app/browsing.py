"""A real browser on the page, and what it may not do: write to its console, or ask another host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SECONDS = 60  # a machine with other work is slow


@dataclass(frozen=True)
class Visit:
    """A page in a browser.

    said: what its console must not have: anything at all, and a word for each request to another host.
    """

    page: Page
    url: str
    said: list[str]

    def open(self) -> None:
        """Go there, and wait until the base is ready."""
        self.page.goto(self.url)
        self.page.wait_for_selector(".state.ready")

    def open_again(self) -> None:
        """Leave the page, and open it anew.

        What it says from the moment that it is left does not count: the browser breaks off its open requests, and
        gradio's client complains of that to nobody.
        """
        before = list(self.said)
        self.page.goto("about:blank")
        self.said[:] = before
        self.open()


@contextmanager
def visiting(url: str, *, width: int = 1440, height: int = 1000) -> Iterator[Visit]:
    """The page, once its base is ready. In the end nothing is in its console, and nothing was asked of other hosts."""
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: said.extend(foreign(request.url)))
        visit = Visit(page, url, said)
        visit.open()
        yield visit
        heard = list(said)
        browser.close()
    assert heard == [], heard


def foreign(url: str) -> list[str]:
    parts = urlsplit(url)
    return [] if parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1" else [f"asked {url}"]
