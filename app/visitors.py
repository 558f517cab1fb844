"""Who asks: a browser or program by its cookie, else by its session or address; and who has left."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

COOKIE = "spectral_fusion_visitor"
TOKEN = re.compile(r"[A-Za-z0-9_-]{32,64}")
SWEEP_SECONDS = 1.0


class Visitor(NamedTuple):
    """Whose a job is. The kinds are apart, so that no text that a client chooses can stand for the server."""

    kind: Literal["browser", "session", "address", "server"]
    id: str


SERVER = Visitor("server", "")


def new_token() -> str:
    """A cookie that nobody can guess."""
    return secrets.token_urlsafe(24)


def by_cookie(token: str | None) -> Visitor | None:
    """The visitor of a cookie; None where there is none, or it is not one of ours."""
    return Visitor("browser", token) if token and TOKEN.fullmatch(token) else None


def visitor_of(request: Any) -> Visitor:
    """Who sent a request of Gradio or FastAPI: by cookie, else by session, else by address."""
    found = by_cookie((request.cookies or {}).get(COOKIE))
    if found:
        return found
    session = getattr(request, "session_hash", None)
    client = getattr(request, "client", None)
    return Visitor("session", str(session)) if session else Visitor("address", str(getattr(client, "host", "")))


class Presence:
    """Which visitors are asking or listening, and since when the others are not."""

    def __init__(self) -> None:
        self._open: Counter[Visitor] = Counter()
        self._since: dict[Visitor, float] = {}
        self._lock = threading.Lock()

    def enter(self, visitors: Iterable[Visitor]) -> None:
        """A connection of these was opened."""
        with self._lock:
            self._open.update(visitors)

    def leave(self, visitors: Iterable[Visitor]) -> None:
        """It is closed."""
        with self._lock:
            for visitor in visitors:
                self._open[visitor] -= 1
                if self._open[visitor] <= 0:
                    del self._open[visitor]
                    self._since[visitor] = time.monotonic()

    def away(self, visitor: Visitor, since: float) -> float:
        """Seconds for which a visitor has had no connection; `since`: when his job was asked for, if he never had."""
        now = time.monotonic()
        with self._lock:
            if self._open[visitor] > 0:
                return 0.0
            return now - max(since, self._since.get(visitor, since))

    def forget(self, seconds: float) -> None:
        """Let go of those who left longer ago."""
        before = time.monotonic() - seconds
        with self._lock:
            self._since = {visitor: left for visitor, left in self._since.items() if left > before}

    def watch(self, sweep: Callable[[], None]) -> None:
        """Call `sweep` now and then, for as long as the process lives."""

        def watch() -> None:
            while True:
                time.sleep(SWEEP_SECONDS)
                sweep()

        threading.Thread(target=watch, name="presence", daemon=True).start()
