"""One line of jobs."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest
from loops import run

from spectral_fusion.errors import InputError
from spectral_fusion_app.jobs import Job, Line
from spectral_fusion_app.visitors import SERVER, Presence, Visitor

ANN, BOB = Visitor("browser", "ann"), Visitor("browser", "bob")


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

    jobs = [line.submit(ANN, lambda job, number=number: work(number, job)) for number in range(50)]
    assert [job.wait(60) for job in jobs] == list(range(50))
    assert order == list(range(50))


def test_who_waits_is_told_how_long_the_line_is_and_then_the_updates() -> None:
    line, gate = Line(10), threading.Event()

    def work(job: Job) -> str:
        job.update = "half"
        gate.wait(60)
        return "whole"

    first, second = line.submit(ANN, work), line.submit(BOB, lambda job: None)
    assert (line.before(first), line.before(second)) == (0, 1)

    async def both() -> tuple[list, list]:
        watching = asyncio.gather(gather(line, first), gather(line, second))
        while first.update != "half":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        gate.set()
        return await watching

    told, waited = run(both())
    assert told[-1] == "half"
    assert waited[0] == 1
    assert first.result == "whole"


def test_cancel_stops_what_runs_and_what_waits_of_one_key_alone() -> None:
    line, started = Line(10), threading.Event()

    def until_cancelled(job: Job) -> str:
        started.set()
        assert job._cancelled.wait(60)
        return "what there was"

    running = line.submit(ANN, until_cancelled)
    waiting = line.submit(ANN, lambda job: pytest.fail("it was cancelled"))
    other = line.submit(BOB, lambda job: "done")
    assert started.wait(60)
    assert line.cancel(ANN) == 2
    assert running.wait(60) == "what there was"
    assert waiting.wait(60) is None
    assert other.wait(60) == "done"


def test_an_error_reaches_who_asked_and_the_line_goes_on() -> None:
    line = Line(10)

    def fail(job: Job) -> None:
        raise InputError("no such thing")

    failed, fine = line.submit(ANN, fail), line.submit(BOB, lambda job: 1)
    with pytest.raises(InputError, match="no such thing"):
        run(gather(line, failed))
    assert fine.wait(60) == 1


def test_a_line_that_is_too_long_refuses() -> None:
    line, gate = Line(2), threading.Event()
    jobs = [line.submit(ANN, lambda job: gate.wait(60)) for _ in range(3)]
    with pytest.raises(InputError, match="2 requests are waiting"):
        line.submit(ANN, lambda job: None)
    gate.set()
    jobs[-1].wait(60)


def blocked(line: Line) -> tuple[threading.Event, Job]:
    """Something that runs until the gate is open."""
    gate = threading.Event()
    job = line.submit(SERVER, lambda job: gate.wait(60))
    while not job.started:
        time.sleep(0.001)
    return gate, job


def test_each_visitor_has_a_limit_of_his_own() -> None:
    line = Line(10, each=2)
    gate, _ = blocked(line)
    for _ in range(3):
        line.submit(ANN, lambda job: None)
    with pytest.raises(InputError, match="2 of your requests"):
        line.submit(ANN, lambda job: None)
    line.submit(BOB, lambda job: None)
    gate.set()


def test_visitors_take_turns_and_keep_their_own_order() -> None:
    line, order = Line(20), []
    gate, _ = blocked(line)
    jobs = [line.submit(ANN, lambda job, n=n: order.append(n)) for n in range(4)]
    jobs += [line.submit(BOB, lambda job, n=n: order.append(n)) for n in (10, 11)]
    assert [line.before(job) for job in jobs] == [1, 3, 5, 6, 2, 4]
    gate.set()
    for job in jobs:
        job.wait(60)
    assert order == [0, 10, 1, 11, 2, 3]


def test_a_waiting_job_that_is_cancelled_is_over_at_once_and_makes_room() -> None:
    line = Line(1)
    gate, running = blocked(line)
    with_limit = pytest.raises(InputError, match="1 requests are waiting")
    waiting = line.submit(ANN, lambda job: pytest.fail("it was cancelled"))
    with with_limit:
        line.submit(BOB, lambda job: None)
    assert line.cancel(ANN) == 1
    assert waiting.wait(0) is None
    assert (waiting.state, running.state) == ("cancelled", "running")
    line.submit(BOB, lambda job: None)
    gate.set()


def test_nobody_cancels_what_belongs_to_another_or_to_the_server() -> None:
    line = Line(10)
    gate, running = blocked(line)
    job = line.submit(ANN, lambda job: "done")
    for name in ("ann", "", "base", "fuse", "server"):
        for kind in ("browser", "session"):
            visitor = Visitor(kind, name)  # type: ignore[arg-type]
            if visitor != ANN:
                assert line.cancel(visitor) == 0
                assert line.cancel(visitor, job.id) == 0
    assert (running.cancelled, job.cancelled) == (False, False)
    gate.set()
    assert job.wait(60) == "done"


def test_one_of_several_jobs_is_cancelled_moved_and_found_again() -> None:
    line, order = Line(10), []
    gate, _ = blocked(line)
    first, second, third = (line.submit(ANN, lambda job, n=n: order.append(n), str(n)) for n in range(3))
    line.move(ANN, third.id, -1)
    line.move(ANN, first.id, -1)  # it is the first already
    line.move(BOB, first.id, 1)
    assert line.cancel(ANN, second.id) == 1
    assert [job.label for job in line.jobs(ANN)] == ["1", "0", "2"], "what is over comes first"
    gate.set()
    third.wait(60)
    assert order == [0, 2]
    assert [job.state for job in line.jobs(ANN)] == ["cancelled", "done", "done"]


def test_who_has_no_connection_is_away() -> None:
    presence, now = Presence(), time.monotonic()
    assert presence.away(ANN, now - 5) == pytest.approx(5, abs=1)
    presence.enter([ANN])
    presence.enter([ANN])
    presence.leave([ANN])
    assert presence.away(ANN, now - 5) == 0, "another page is open still"
    presence.leave([ANN])
    assert presence.away(ANN, now - 5) < 1, "counted from when the last one closed"


def test_many_requests_before_the_base_is_there_import_its_modules_once() -> None:
    """transformers, accelerate and peft import one another in circles, which two threads at once would break."""
    code = """
import importlib, sys, threading
from spectral_fusion_app.errors import answered
from spectral_fusion_app.modules import MODULES, import_once
failed, start = [], threading.Barrier(len(MODULES))
def ask(name):
    def endpoint() -> None:
        importlib.import_module(name)
    start.wait()
    try:
        answered(endpoint)()
    except Exception as error:
        failed.append(f"{name}: {error}")
threads = [threading.Thread(target=ask, args=[name]) for name in reversed(MODULES)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit("; ".join(failed) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_the_thread_that_draws_computes_on_all_cores_and_the_others_alone() -> None:
    """Helpers of several threads that outnumber the cores sleep between operations: pictures take twice as long."""
    code = """
import sys, threading
import torch
from spectral_fusion_app.modules import compute_on_all_cores, import_once
drawing, asked, told = threading.Event(), threading.Event(), []
def draw() -> None:
    compute_on_all_cores()
    told.append(torch.get_num_threads())
    drawing.set()
    asked.wait()
    told.append(torch.get_num_threads())
drawer = threading.Thread(target=draw)
drawer.start()
drawing.wait()
answerer = threading.Thread(target=lambda: (import_once(), told.append(torch.get_num_threads())))
answerer.start()
answerer.join()
asked.set()
drawer.join()
sys.exit(0 if told == [2, 1, 2] else str(told))
"""
    two = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, env=two)
    assert done.returncode == 0, done.stderr
