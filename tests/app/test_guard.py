"""What is refused before Gradio sees it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from loops import run

from spectral_fusion_app.guard import Budget, Guard
from spectral_fusion_app.settings import AppSettings, Limits
from spectral_fusion_app.visitors import COOKIE, Presence, Visitor

ALONE = AppSettings()
OPEN = AppSettings(host="0.0.0.0", allow_remote=True)
HERE = "127.0.0.1:7860"


@dataclass
class Asked:
    """A request and what came of it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    read: int = 0


def ask(
    guard_of: AppSettings = ALONE,
    path: str = "/",
    method: str = "GET",
    chunks: Sequence[bytes] = (b"",),
    presence: Presence | None = None,
    during: Any = None,
    **headers: str,
) -> Asked:
    """Send a request through the guard to a server that reads it whole and says yes."""
    asked = Asked()
    pieces = list(chunks)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            asked.status = message["status"]
            asked.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            asked.body += message["body"]

    async def server(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            asked.read += len(message["body"])
            more = message["more_body"]
        if during:
            during()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})

    given = {"host": HERE} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "method": method,
        "path": path.partition("?")[0],
        "query_string": path.partition("?")[2].encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    run(Guard(server, guard_of, presence or Presence())(scope, receive, send))
    return asked


@pytest.mark.parametrize("host", [HERE, "localhost:1", "[::1]:7860", "127.0.0.2"])
def test_a_page_of_this_machine_is_reached_by_its_own_names(host: str) -> None:
    assert ask(host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "192.168.1.5", "", "localhost.evil.example"])
def test_and_by_no_other_that_somebody_elses_dns_gives_it(host: str) -> None:
    asked = ask(host=host)
    assert asked.status == 403
    assert asked.read == 0
    assert b"--allow-host" in asked.body


def test_names_can_be_allowed_and_addresses_are_fine_where_the_page_is_open() -> None:
    assert ask(replace(ALONE, hosts=("demo.example.org",)), host="demo.example.org").status == 200
    assert ask(OPEN, host="192.168.1.5:7860").status == 200
    assert ask(OPEN, host="evil.example").status == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (f"http://{HERE}", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:1234", 403),
        ("null", 403),
        ("https://demo.example.org", 200),
    ],
)
@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
def test_other_sites_send_nothing(path: str, origin: str, status: int) -> None:
    settings = replace(ALONE, hosts=("demo.example.org",))
    assert ask(settings, path, "POST", origin=origin).status == status


def test_a_body_is_bounded_whether_or_not_its_length_is_said() -> None:
    settings = replace(ALONE, limits=Limits(body_bytes=1000, upload_bytes=5000))
    assert ask(settings, "/gradio_api/queue/join", "POST", content_length="1001").status == 413
    large = ask(settings, "/gradio_api/queue/join", "POST", chunks=[b"x" * 600] * 50)
    assert (large.status, large.read) == (413, 600), "the rest is not even read"
    assert ask(settings, "/gradio_api/queue/join", "POST", chunks=[b"x" * 500] * 2).status == 200
    assert ask(settings, "/gradio_api/upload", "POST", chunks=[b"x" * 2500] * 2).status == 200
    assert ask(settings, "/gradio_api/upload", "POST", content_length=str(2**30)).status == 413


def test_uploads_of_an_hour_are_bounded() -> None:
    budget = Budget(10, 3600)
    budget.spend(6)
    budget.spend(6)
    assert budget.spent == 12
    soon = Budget(10, 0.0)
    soon.spend(6)
    assert soon.spent == 0


def test_a_first_visit_brings_a_cookie_that_scripts_do_not_see_and_keeps_it() -> None:
    told = ask(path="/").headers["set-cookie"]
    assert told.startswith(f"{COOKIE}=")
    assert "HttpOnly" in told
    assert "SameSite=Lax" in told
    token = told.partition("=")[2].partition(";")[0]
    assert "set-cookie" not in ask(path="/", cookie=f"{COOKIE}={token}").headers
    assert "set-cookie" in ask(path="/", cookie=f"{COOKIE}=chosen").headers, "not one of ours"
    assert "set-cookie" not in ask(path="/theme.css").headers


@pytest.mark.parametrize(
    ("path", "visitors"),
    [
        ("/gradio_api/heartbeat/abc", [Visitor("browser", "t" * 32), Visitor("session", "abc")]),
        ("/gradio_api/queue/data?session_hash=abc", [Visitor("browser", "t" * 32), Visitor("session", "abc")]),
        ("/gradio_api/call/generate/abc", [Visitor("browser", "t" * 32), Visitor("session", "abc")]),
        ("/gradio_api/info", []),
        ("/", []),
    ],
)
def test_who_listens_is_present_and_gone_afterwards(path: str, visitors: list[Visitor]) -> None:
    presence, seen = Presence(), []
    everybody = [Visitor("browser", "t" * 32), Visitor("session", "abc")]

    def look() -> None:
        seen.extend(visitor for visitor in everybody if presence.away(visitor, 0) == 0)

    ask(path=path, presence=presence, during=look, cookie=f"{COOKIE}={'t' * 32}")
    assert seen == visitors
    assert all(presence.away(visitor, 0) > 0 for visitor in everybody)


def test_an_open_page_that_asks_how_it_stands_is_there() -> None:
    """Nothing else of a page stays open: without this a picture that takes longer than `away` would be cancelled."""
    presence, visitor = Presence(), Visitor("browser", "t" * 32)
    long_ago = time.monotonic() - 1000
    assert presence.away(visitor, long_ago) > 900
    ask(path="/gradio_api/component_server", method="POST", presence=presence, cookie=f"{COOKIE}={'t' * 32}")
    assert presence.away(visitor, long_ago) < 60


def test_more_places_than_may_wait() -> None:
    with pytest.raises(ValueError, match="holds a place"):
        Limits(waiting=128, places=128)
