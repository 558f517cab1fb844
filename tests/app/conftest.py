"""A server of the page for all tests of a file, and a visit to it in a browser for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browsing import Visit, visiting
from playwright.sync_api import Page
from serving import Server, make_place, serve

from training import draw_photos


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On a tiny base with the concepts rex and tom; six photos lie beside them."""
    place = make_place(tmp_path_factory.mktemp("page"))
    draw_photos(place / "photos", count=6)
    with serve(place) as server:
        yield server


@pytest.fixture
def visit(server: Server) -> Iterator[Visit]:
    with visiting(server.url) as visit:
        visit.page.wait_for_selector("[id^=chip-]")  # the concepts are there
        yield visit


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page
