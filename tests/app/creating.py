"""What tests do on Create in a browser."""

from __future__ import annotations

import time
from pathlib import Path

from browsing import SECONDS
from playwright.sync_api import Page, expect
from serving import Server


def write(page: Page, **values: object) -> None:
    for name, value in values.items():
        page.fill(f"#f-{name}", str(value))


def idle(page: Page) -> None:
    expect(page.locator("#cancel")).to_be_disabled()


def create(page: Page, server: Server, pictures: int = 1) -> list[Path]:
    """Press Create, and wait until so many pictures are there and nothing runs."""
    before = set(server.pictures)
    page.click("#generate")
    until = time.monotonic() + SECONDS
    while len(server.pictures) < len(before) + pictures and time.monotonic() < until:
        page.wait_for_timeout(50)
    idle(page)
    made = sorted(set(server.pictures) - before)
    assert len(made) == pictures
    return made


def drag(page: Page, left: float, top: float, right: float, bottom: float) -> None:
    """Over the picture; fractions of it."""
    area = page.locator(".frame").bounding_box()
    assert area
    points = [(left, top), ((left + right) / 2, (top + bottom) / 2), (right, bottom)]
    places = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()
