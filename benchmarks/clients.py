"""Many visitors on one server for minutes: is an answer lost, does memory grow, is the page there for one more?

    python benchmarks/clients.py --seconds 600

Forty visitors ask for small pictures on the tests' miniature base, each the next as soon as it has one; a forty-first
opens the page now and then and asks what concepts there are. Prints a JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

TESTS = Path(__file__).parents[1] / "tests"
COOKIE = "spectral_fusion_visitor"
PATIENCE = 120.0  # seconds for one answer
USABLE = 5.0  # seconds in which the page must be there
GROWTH = 0.05  # of the server's memory, from its second minute to its last
ASKED = {"prompt": "a <rex> dog", "steps": 2, "width": 32, "height": 32, "guidance_scale": 1.0}


@dataclass
class Found:
    """What the visitors saw."""

    answers: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    pages: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


async def call(client: httpx.AsyncClient, name: str, data: list[Any]) -> tuple[str, str]:
    """Call an endpoint as its documentation says; the last event and its text."""
    asked = await client.post(f"gradio_api/call/{name}", json={"data": data})
    asked.raise_for_status()
    event, last = "", ("nothing", "")
    async with client.stream("GET", f"gradio_api/call/{name}/{asked.json()['event_id']}") as lines:
        async for line in lines.aiter_lines():
            if line.startswith("event: "):
                event = line[7:]
            elif line.startswith("data: ") and event in ("complete", "error"):
                last = event, line[6:]
    return last


async def visit(url: str, number: int, arguments: list[str], end: float, found: Found) -> None:
    """One visitor, who asks until the time is over and waits for each answer."""
    cookies = {COOKIE: secrets.token_urlsafe(24)}
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, cookies=cookies) as client:
        turn = 0
        while time.monotonic() < end:
            turn, begin = turn + 1, time.monotonic()
            given = ASKED | {"seed": 100_000 * number + turn}
            try:
                event, text = await call(client, "generate", [given.get(name) for name in arguments])
                if event != "complete":
                    found.problems[text[:120]] += 1
                else:
                    [picture] = json.loads(text)[0]
                    (await client.get(picture["url"])).raise_for_status()
                    found.answers["pictures"] += 1
            except (httpx.HTTPError, ValueError, KeyError) as error:
                found.problems[f"{type(error).__name__}: {error}"[:120]] += 1
            found.waits.append(time.monotonic() - begin)


async def look_in(url: str, end: float, found: Found) -> None:
    """The one more: opens the page with a new cookie, and asks what concepts there are."""
    while time.monotonic() < end:
        begin = time.monotonic()
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
            (await client.get("")).raise_for_status()
            event, text = await call(client, "concepts", [])
        if event == "complete" and "rex" in text:
            found.pages.append(time.monotonic() - begin)
        else:
            found.problems[f"the page of one more: {event} {text[:80]}"] += 1
        await asyncio.sleep(5)


async def weigh(process: psutil.Process, start: float, end: float, found: Found) -> None:
    """The server's memory, now and then, in MiB."""
    while time.monotonic() < end:
        found.memory.append((time.monotonic() - start, process.memory_info().rss / 2**20))
        await asyncio.sleep(2)


async def ready(url: str) -> None:
    """Until the base is loaded."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        for _ in range(600):
            if "rex" in (await call(client, "concepts", []))[1]:
                return
            await asyncio.sleep(0.5)
    raise RuntimeError("the base does not load")


async def crowd(url: str, pid: int, count: int, seconds: float) -> Found:
    """All of them at once."""
    info = httpx.get(f"{url}gradio_api/info", timeout=PATIENCE).json()["named_endpoints"]["/generate"]["parameters"]
    arguments = [one["parameter_name"] for one in info]
    defaults = {one["parameter_name"]: one.get("parameter_default") for one in info}
    ASKED.update({name: value for name, value in defaults.items() if name not in ASKED and name != "seed"})
    await ready(url)
    found, start = Found(), time.monotonic()
    end = start + seconds
    visitors = [visit(url, number, arguments, end, found) for number in range(1, count + 1)]
    await asyncio.gather(*visitors, look_in(url, end, found), weigh(psutil.Process(pid), start, end, found))
    return found


def growth(memory: list[tuple[float, float]], seconds: float) -> float:
    """How much larger the last sixth is than the second, by their means."""
    part = seconds / 6
    early = [size for at, size in memory if part <= at < 2 * part]
    late = [size for at, size in memory if at >= 5 * part]
    return (sum(late) / len(late)) / (sum(early) / len(early)) - 1 if early and late else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    sys.path[:0] = [str(TESTS), str(TESTS / "app")]
    from serving import make_place, serve

    with tempfile.TemporaryDirectory() as folder, serve(make_place(Path(folder))) as server:
        time.sleep(5)
        found = asyncio.run(crowd(server.url, server.process.pid, options.clients, options.seconds))
        kept = len(server.pictures)
        tracebacks = server.log.count("Traceback")
    waits, pages = sorted(found.waits), sorted(found.pages)
    result = {
        "clients": options.clients,
        "seconds": options.seconds,
        "asked": len(waits),
        "pictures": found.answers["pictures"],
        "kept": kept,
        "problems": dict(found.problems),
        "wait_median_s": round(waits[len(waits) // 2], 2) if waits else None,
        "wait_longest_s": round(waits[-1], 2) if waits else None,
        "page_longest_s": round(pages[-1], 2) if pages else None,
        "page_visits": len(pages),
        "memory_MiB": [round(size) for _, size in found.memory[:: max(1, len(found.memory) // 8)]],
        "memory_growth": round(growth(found.memory, options.seconds), 4),
        "tracebacks": tracebacks,
    }
    print(json.dumps(result))
    lost = result["asked"] != result["pictures"] or bool(found.problems)
    return 1 if lost or not pages or pages[-1] > USABLE or abs(result["memory_growth"]) > GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
