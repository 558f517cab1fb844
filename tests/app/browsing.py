"""A real browser on the page, and what it may not do: write to its console, or ask another host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SECONDS = 60  # a machine with other work is slow


@contextmanager
def browsing(url: str, *, width: int = 1440, height: int = 1000) -> Iterator[Page]:
    """The page, once its base is ready. In the end nothing is in its console, and nothing was asked of other hosts."""
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: said.extend(foreign(request.url)))
        open_page(page, url)
        yield page
        browser.close()
    assert said == [], said


def open_page(page: Page, url: str) -> None:
    """Go there, and wait until the base is ready."""
    page.goto(url)
    page.wait_for_selector(".state.ready")


def foreign(url: str) -> list[str]:
    parts = urlsplit(url)
    return [] if parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1" else [f"asked {url}"]
