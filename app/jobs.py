"""One thread for all work on the loaded base, and the line of jobs before it: each visitor in turn."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from spectral_fusion.errors import InputError
from spectral_fusion_app.visitors import Visitor

POLL_SECONDS = 0.03
KEPT = 200  # jobs that are over and can still be asked for

JobState = Literal["waiting", "running", "stopping", "done", "cancelled", "failed"]


class Job:
    """Work that waits, runs and ends. `owner` alone may cancel it.

    Attributes:
        id: a random name.
        label: what it is, for its owner's list.
        about: whatever the page wants to find again with it, such as the form it was made from.
        update: what the work has told last; replaced whole, so that a slow reader misses some and never lags.
        result: what the work returned, once `done` is set.
        error: what it raised.
        turn: its place in the line, in rounds of one job for each visitor.
    """

    def __init__(self, owner: Visitor, work: Callable[[Job], Any], label: str = "", about: Any = None) -> None:
        self.id = secrets.token_hex(8)
        self.owner, self.label, self.about = owner, label, about
        self.update: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        self.asked, self.started = time.monotonic(), 0.0
        self.turn = (0, 0)
        self._work: Callable[[Job], Any] | None = work
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """The work should stop at the next chance; it may still return what it has."""
        return self._cancelled.is_set()

    @property
    def state(self) -> JobState:
        """How it stands."""
        if not self.done.is_set():
            if not self.started:
                return "waiting"
            return "stopping" if self.cancelled else "running"
        if self.error is not None:
            return "failed"
        return "cancelled" if self.cancelled else "done"

    def cancel(self) -> None:
        """Ask the work to stop. `Line.cancel` also takes one that waits out of the line."""
        self._cancelled.set()

    def end(self) -> None:
        """It is over. What only the work needed is let go: finished jobs are kept for a while."""
        self._work = None
        self.done.set()

    def wait(self, timeout: float | None = None) -> Any:
        """The result, once it is there; raises what the work raised, or TimeoutError."""
        if not self.done.wait(timeout):
            raise TimeoutError
        if self.error is not None:
            raise self.error
        return self.result

    def run(self) -> None:
        """Do the work, in the thread of the line."""
        try:
            if self._work is not None:
                self.result = self._work(self)
        except BaseException as error:  # handed to whoever waits; the line goes on
            self.error = error
        finally:
            self.end()


class Line:
    """Jobs on one thread of their own. Visitors take turns; a visitor's own jobs keep their order."""

    def __init__(self, longest: int, each: int | None = None, name: str = "pictures") -> None:
        """longest: jobs that may wait before another is refused; each: of one visitor."""
        self.longest, self.each = longest, longest if each is None else each
        self._waiting: list[Job] = []
        self._running: Job | None = None
        self._over: deque[Job] = deque(maxlen=KEPT)
        self._round, self._number = 0, 0
        self._last_round: dict[Visitor, int] = {}
        self._changed = threading.Condition()  # holds a lock that its owner may take again
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def submit(self, owner: Visitor, work: Callable[[Job], Any], label: str = "", about: Any = None) -> Job:
        """Put work in line.

        Raises:
            InputError: the line is too long, or this visitor has too much in it.
        """
        job = Job(owner, work, label, about)
        with self._changed:
            self._refuse_too_many(owner)
            job.turn = self._next_turn(owner)
            self._waiting.append(job)
            self._waiting.sort(key=lambda job: job.turn)
            self._changed.notify()
        return job

    def before(self, job: Job) -> int:
        """How many jobs come before this one; 0 when it runs or is over."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    def jobs(self, owner: Visitor) -> list[Job]:
        """All jobs of a visitor that are still known: those that are over, then what runs, then what waits."""
        with self._changed:
            running = [self._running] if self._running else []
            return [job for job in (*self._over, *running, *self._waiting) if job.owner == owner]

    def active(self) -> list[Job]:
        """Everybody's jobs that run or wait."""
        with self._changed:
            return [*([self._running] if self._running else []), *self._waiting]

    def cancel(self, owner: Visitor, id: str | None = None) -> int:
        """Cancel a visitor's jobs, or the one of this id; what waits is over at once. Returns how many."""
        with self._changed:
            found = [job for job in self.active() if job.owner == owner and id in (None, job.id)]
            for job in found:
                job.cancel()
                if job in self._waiting:
                    self._waiting.remove(job)
                    job.end()
                    self._over.append(job)
        return len(found)

    def move(self, owner: Visitor, id: str, places: int) -> None:
        """Let one of a visitor's waiting jobs trade places with another of his, `places` further back."""
        with self._changed:
            own = [job for job in self._waiting if job.owner == owner]
            here = next((number for number, job in enumerate(own) if job.id == id), None)
            if here is None or not 0 <= here + places < len(own):
                return
            own[here].turn, own[here + places].turn = own[here + places].turn, own[here].turn
            self._waiting.sort(key=lambda job: job.turn)

    async def follow(self, job: Job) -> AsyncIterator[Any]:
        """What a job tells, as it comes: first, while it waits, the number of jobs before it (int), then its updates.

        Raises what the work raised.
        """
        told: Any = None
        while not job.done.is_set():
            news = job.update if job.update is not None else self.before(job)
            if news is not told and news != told:
                told = news
                yield news
            await asyncio.sleep(POLL_SECONDS)
        if job.error is not None:
            raise job.error

    def _refuse_too_many(self, owner: Visitor) -> None:
        """The job that runs is counted, since the first of the line runs the next moment."""
        if owner.kind == "server":
            return
        active = self.active()
        if len(active) > self.longest:
            raise InputError(f"{self.longest} requests are waiting already; try again later")
        if sum(other.owner == owner for other in active) > self.each:
            raise InputError(f"{self.each} of your requests are waiting already; wait for one, or cancel one")

    def _next_turn(self, owner: Visitor) -> tuple[int, int]:
        """The round after this visitor's last one; a visitor who has nothing in line joins the present round."""
        if not self._waiting and self._running is None:
            self._round += 1
        self._last_round = {who: last for who, last in self._last_round.items() if last >= self._round}
        turn = max(self._round, self._last_round.get(owner, -1) + 1)
        self._last_round[owner] = turn
        self._number += 1
        return turn, self._number

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                job = self._running = self._waiting.pop(0)
                self._round = max(self._round, job.turn[0])
                job.started = time.monotonic()
            job.run()
            with self._changed:
                self._running = None
                self._over.append(job)
