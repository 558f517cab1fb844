"""One line of jobs."""

import asyncio
import threading

import pytest

from spectral_fusion.errors import InputError
from spectral_fusion_app.jobs import Job, Line


async def gather(line: Line, job: Job) -> list:
    return [news async for news in line.follow(job)]


def test_jobs_run_one_at_a_time_in_the_order_of_asking() -> None:
    line, order, running = Line(100), [], []

    def work(number: int, job: Job) -> int:
        running.append(number)
        assert len(running) == 1
        order.append(number)
        running.remove(number)
        return number

    jobs = [line.submit("ann", lambda job, number=number: work(number, job)) for number in range(50)]
    assert [job.wait(10) for job in jobs] == list(range(50))
    assert order == list(range(50))


def test_who_waits_is_told_how_long_the_line_is_and_then_the_updates() -> None:
    line, gate = Line(10), threading.Event()

    def work(job: Job) -> str:
        job.update = "half"
        gate.wait(10)
        return "whole"

    first, second = line.submit("ann", work), line.submit("bob", lambda job: None)
    assert (line.before(first), line.before(second)) == (0, 1)

    async def both() -> tuple[list, list]:
        watching = asyncio.gather(gather(line, first), gather(line, second))
        await asyncio.sleep(0.3)
        gate.set()
        return await watching

    told, waited = asyncio.run(both())
    assert told[-1] == "half"
    assert waited[0] == 1
    assert first.result == "whole"


def test_cancel_stops_what_runs_and_what_waits_of_one_key_alone() -> None:
    line, started = Line(10), threading.Event()

    def until_cancelled(job: Job) -> str:
        started.set()
        assert job._cancelled.wait(10)
        return "what there was"

    running = line.submit("ann", until_cancelled)
    waiting = line.submit("ann", lambda job: pytest.fail("it was cancelled"))
    other = line.submit("bob", lambda job: "done")
    assert started.wait(10)
    assert line.cancel("ann") == 2
    assert running.wait(10) == "what there was"
    assert waiting.wait(10) is None
    assert other.wait(10) == "done"


def test_an_error_reaches_who_asked_and_the_line_goes_on() -> None:
    line = Line(10)

    def fail(job: Job) -> None:
        raise InputError("no such thing")

    failed, fine = line.submit("ann", fail), line.submit("bob", lambda job: 1)
    with pytest.raises(InputError, match="no such thing"):
        asyncio.run(gather(line, failed))
    assert fine.wait(10) == 1


def test_a_line_that_is_too_long_refuses() -> None:
    line, gate = Line(2), threading.Event()
    jobs = [line.submit("ann", lambda job: gate.wait(10)) for _ in range(3)]
    with pytest.raises(InputError, match="2 requests are waiting"):
        line.submit("ann", lambda job: None)
    gate.set()
    jobs[-1].wait(10)
