"""One thread that does everything that touches the loaded base, in the order in which it was asked for."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from spectral_fusion.errors import InputError

POLL_SECONDS = 0.1


class Job:
    """Work that waits, runs and ends; `key` says whose it is.

    Attributes:
        update: what the work has told last; replaced whole, so that a slow reader misses some and never lags.
        result: what the work returned, once `done` is set.
        error: what it raised.
    """

    def __init__(self, key: str, work: Callable[[Job], Any]) -> None:
        self.key = key
        self.work = work
        self.update: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """The work should stop at the next chance; it may still return what it has."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the work to stop; one that has not begun never will."""
        self._cancelled.set()

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
            if not self.cancelled:
                self.result = self.work(self)
        except BaseException as error:  # handed to whoever waits; the line goes on
            self.error = error
        finally:
            self.done.set()


class Line:
    """Jobs, first come first served, on one thread of their own."""

    def __init__(self, longest: int) -> None:
        """longest: jobs that may wait before another is refused."""
        self.longest = longest
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._serve, name="pictures", daemon=True).start()

    def submit(self, key: str, work: Callable[[Job], Any]) -> Job:
        """Put work at the end of the line. Raises InputError where the line is too long."""
        job = Job(key, work)
        with self._changed:
            if len(self._jobs) > self.longest:
                raise InputError(f"{self.longest} requests are waiting already; try again later")
            self._jobs.append(job)
            self._changed.notify()
        return job

    def before(self, job: Job) -> int:
        """How many jobs come before this one; 0 when it runs or is done."""
        with self._changed:
            return self._jobs.index(job) if job in self._jobs else 0

    def cancel(self, key: str) -> int:
        """Cancel the jobs of one key, running or waiting; returns how many."""
        with self._changed:
            jobs = [job for job in self._jobs if job.key == key]
        for job in jobs:
            job.cancel()
        return len(jobs)

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

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs)
                job = self._jobs[0]
            job.run()
            with self._changed:
                self._jobs.popleft()
