"""What a request must be before Gradio sees it: of a browser that was meant to come here, and of a bounded size."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.visitors import COOKIE, Presence, Visitor, by_cookie, new_token

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PAGES = ("", "config")  # what a visit begins with: it brings the cookie
COOKIE_SECONDS = 30 * 86_400
HOUR = 3600.0
DRAINED = 4  # times its bound: how much of a body that is too large is read
DRAIN_SECONDS = 5.0
API = "gradio_api"
SHOWN = "shown"  # what addresses of pictures and downloads begin with


class TooLarge(Exception):
    """A body goes over its bound."""


class Guard:
    """ASGI middleware around the whole server."""

    def __init__(self, app: App, settings: AppSettings, presence: Presence) -> None:
        self.app, self.settings, self.presence = app, settings, presence
        self.uploads = Budget(settings.limits.upload_total, HOUR)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._refusal(headers):
            await _answer(send, 403, refusal)
            return
        path = str(scope["path"]).strip("/")
        limit = self._limit(path)
        if _length(headers) > limit:
            await _drain(receive, min(_length(headers), DRAINED * limit))
            await _answer(send, 413, _too_large(limit))
            return
        if path.endswith("/upload") and self.uploads.spent >= self.settings.limits.upload_total:
            await _answer(send, 507, "too much was uploaded within the last hour; try again later")
            return
        visitor = by_cookie(_cookie(headers))
        if scope["method"] in ("GET", "HEAD") and path.startswith(f"{SHOWN}/"):
            scope = self._file(scope, path)
        await self._pass_on(scope, receive, send, path, limit, visitor)

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, path: str, limit: int, visitor: Visitor | None
    ) -> None:
        begun = False
        bring = visitor is None and path in PAGES and scope["method"] == "GET"

        async def tell(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if bring:
                    message["headers"] = [*message.get("headers", []), _new_cookie(scope)]
            await send(message)

        present = _present(path, scope, visitor)
        self.presence.enter(present)
        try:
            await self.app(scope, self._measured(receive, path, limit), tell)
        except TooLarge:
            if not begun:
                await _answer(send, 413, _too_large(limit))
        finally:
            self.presence.leave(present)

    def _measured(self, receive: Receive, path: str, limit: int) -> Receive:
        """The body as it comes, up to its bound: a request need not say beforehand how long it is."""
        seen = 0

        async def measured() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                seen += size
                if path.endswith("/upload"):
                    self.uploads.spend(size)
                if seen > limit:
                    raise TooLarge
            return message

        return measured

    def _file(self, scope: Scope, path: str) -> Scope:
        """The request as Gradio takes it, which looks whether the file may be shown: by its whole path."""
        kind, _, name = path.removeprefix(f"{SHOWN}/").partition("/")
        folder = {shown.name: shown for shown in self.settings.shown}.get(kind)
        if folder is None or ".." in name.split("/"):
            return scope
        whole = f"/{API}/file={folder.resolve() / name}"
        return {**scope, "path": whole, "raw_path": quote(whole, safe="/=").encode()}

    def _limit(self, path: str) -> int:
        limits = self.settings.limits
        return limits.upload_bytes + 2**20 if path.endswith("/upload") else limits.body_bytes

    def _refusal(self, headers: dict[str, str]) -> str:
        """Why a browser may not ask this; empty where it may."""
        host = headers.get("host", "")
        if not self.settings.is_own_host(_name(host)):
            return "this page is not reached by that name; start it with --allow-host NAME"
        origin = headers.get("origin")
        if origin is None:
            return ""
        own = {host, headers.get("x-forwarded-host", host)}
        asked = urlsplit(origin)
        if asked.netloc in own or (asked.hostname or "") in map(str.lower, self.settings.hosts):
            return ""
        return "another site asks for this; open the page itself"


class Budget:
    """How much was spent within some time."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self._spent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def spend(self, amount: int) -> None:
        """Note an amount."""
        with self._lock:
            now = time.monotonic()
            if self._spent and now - self._spent[-1][0] < 1.0:  # an entry a second, however small the pieces are
                amount += self._spent.pop()[1]
            self._spent.append((now, amount))

    @property
    def spent(self) -> int:
        """What still counts."""
        with self._lock:
            while self._spent and self._spent[0][0] < time.monotonic() - self.seconds:
                self._spent.popleft()
            return sum(amount for _, amount in self._spent)


def _present(path: str, scope: Scope, visitor: Visitor | None) -> list[Visitor]:
    """Whose presence a request shows while it is open: a question of a page, or a stream that somebody listens to."""
    if not path.startswith(f"{API}/"):
        return []
    parts = path.split("/")
    session = None
    if scope["method"] == "POST" and parts[1:] == ["component_server"]:
        pass  # an open page asks every few seconds how it stands
    elif scope["method"] != "GET":
        return []
    elif parts[1] == "heartbeat" and len(parts) == 3:
        session = parts[2]
    elif parts[1:] == ["queue", "data"]:
        session = (parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash") or [None])[0]
    elif parts[1] == "call" and len(parts) >= 4:
        session = parts[-1]  # Gradio's session of a program that names none is the event
    else:
        return []
    address = Visitor("address", str((scope.get("client") or ("",))[0]))  # of a browser that keeps no cookies
    return [address, *([visitor] if visitor else []), *([Visitor("session", session)] if session else [])]


def _cookie(headers: dict[str, str]) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None


def _new_cookie(scope: Scope) -> tuple[bytes, bytes]:
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    text = f"{COOKIE}={new_token()}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax{secure}"
    return b"set-cookie", text.encode()


def _name(host: str) -> str:
    """`example.org:7860` and `[::1]:7860` without the port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _too_large(limit: int) -> str:
    return f"the request is larger than the {limit / 1e6:.0f} MB allowed"


async def _drain(receive: Receive, most: int) -> None:
    """Read a body and forget it: a browser that is still sending would miss the answer."""

    async def drain() -> None:
        seen, more = 0, True
        while more and seen < most:
            message = await receive()
            seen += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(drain(), DRAIN_SECONDS)


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
