"""A real browser on the page, and what it may not do: write to its console, or ask another host."""

from __future__ import annotations

import atexit
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, expect, sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SECONDS = 180  # a machine with other work is slow
READY_SECONDS = 240  # the base loads after the first page
expect.set_options(timeout=SECONDS * 1000)


@dataclass(frozen=True)
class Visit:
    """A page in a browser.

    said: what its console must not have: anything at all, and a word for each request to another host.
    """

    page: Page
    url: str
    browser: Browser
    said: list[str] = field(default_factory=list)

    def open(self) -> None:
        """Go there, and wait until the base is ready and Create is drawn, wherever the page then is."""
        self.page.goto(self.url)
        self.page.wait_for_selector(".state.ready, .state.failed", timeout=READY_SECONDS * 1000)
        expect(self.page.locator("#status")).to_have_text(re.compile("ready$"))
        self.page.wait_for_selector(
            ".create.ready", state="attached"
        )  # a page that is loaded again shows its last place

    def open_again(self) -> None:
        """Load the page anew.

        What it says from the moment that it is left does not count: the browser breaks off its open requests, and
        gradio's client complains of that to nobody.
        """
        before = list(self.said)
        self.page.goto("about:blank")
        self.said[:] = before
        self.open()

    def another(self, **options: object) -> Visit:
        """Somebody else's page in a browser of his own."""
        visit = listened(self.browser.new_context(**options).new_page(), self.url, self.browser)  # type: ignore[arg-type]
        visit.open()
        return visit


@contextmanager
def visiting(url: str, *, width: int = 1440, height: int = 1000, **options: Any) -> Iterator[Visit]:
    """The page, once its base is ready. In the end nothing is in its console, and nothing was asked of other hosts.

    options: of the browser's context, such as `has_touch`.
    """
    browser = one_browser()
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    try:
        visit = listened(context.new_page(), url, browser)
        visit.open()
        yield visit
        heard = list(visit.said)
    finally:
        for opened in browser.contexts:
            opened.close()
    assert heard == [], heard


@cache
def one_browser() -> Browser:
    """One for all tests of this process: each visit has its own cookies and storage all the same."""
    playwright = sync_playwright().start()
    atexit.register(playwright.stop)
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
    atexit.register(browser.close)
    return browser


def listened(page: Page, url: str, browser: Browser) -> Visit:
    """A visit that notes what the page says and asks for."""
    visit = Visit(page, url, browser)
    page.set_default_timeout(SECONDS * 1000)
    page.on("console", lambda message: visit.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: visit.said.append(f"error: {error}"))
    page.on("request", lambda request: visit.said.extend(foreign(request.url)))
    return visit


def foreign(url: str) -> list[str]:
    parts = urlsplit(url)
    return [] if parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1" else [f"asked {url}"]
