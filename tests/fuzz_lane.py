"""Inputs of `fuzzing.py` at the doors, for hours: only InputError may come out, and none may take long.

`make fuzz` goes on where the last run ended: the ledger has a line for each thousand inputs or so, and the counts of
all runs add up. `python tests/fuzz_lane.py --table` prints them. An input comes back from kind, seed and number alone:
`--kind concepts --seed 7 --first 123 --count 1`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fuzzing
from spectral_fusion.errors import InputError

SLOWEST = 2.0  # seconds of processor time that any one input may take
STUCK = 60.0  # seconds of processor time after which an input is given up
CHUNK = 1000
CHUNKS_PER_PROCESS = 100  # then a new one: the safetensors library keeps some 60 bytes of each tensor asked for
GOALS = {"concepts": 1_000_000, "pictures": 100_000, "settings": 100_000, "prompts": 100_000, "texts": 100_000}
MEMORY = Path("/dev/shm")  # files that never reach a disk, where the system has such a place


def try_concept(data: bytes, folder: Path) -> None:
    from spectral_fusion.concept import Concept, read_info

    path = folder / "a.safetensors"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        read_info(path)
    try:
        concept = Concept.load(path)
    except InputError:
        return
    for layer in concept.layers:
        concept.factors(layer)


def try_picture(data: bytes, folder: Path) -> None:
    from spectral_fusion.picture import read_parameters
    from spectral_fusion.reading import load_picture, read_header

    path = folder / "a.png"
    path.write_bytes(data)
    for read in (load_picture, read_header, read_parameters):
        with contextlib.suppress(InputError):
            read(path)


def try_settings(text: str, folder: Path) -> None:
    from spectral_fusion.generation import GenerateConfig
    from spectral_fusion.picture import Parameters

    with contextlib.suppress(InputError):
        parameters = Parameters.parse(text)
        _ = parameters.weights
        GenerateConfig.from_parameters(parameters)


def try_prompt(text: str, folder: Path) -> None:
    from spectral_fusion.base import prompt
    from spectral_fusion.picture import Parameters

    for read in (prompt.weigh, prompt.take_lora_tags, lambda given: prompt.check_triggers(given, ["<rex>"])):
        with contextlib.suppress(InputError):
            read(text)
    parameters = Parameters(text, text[::-1], {"Steps": "1", "Version": "spectral-fusion"})
    if Parameters.parse(str(parameters)) != parameters:
        raise AssertionError(f"a prompt does not come back: {text!r}")


def try_text(data: bytes, folder: Path) -> None:
    from spectral_fusion.cli.command import parse_config
    from spectral_fusion.concept.claim import Claim
    from spectral_fusion.concept.images.captions import read_caption
    from spectral_fusion.concept.images.table import read_table

    doors = {
        "a.txt": read_caption,
        "metadata.jsonl": lambda path: read_table(path.parent),
        "metadata.csv": lambda path: read_table(path.parent),
        "a.toml": lambda path: parse_config(path, ["steps", "class", "cfg_scale"]),
        "claim.json": Claim.load,
    }
    for name, read in doors.items():
        path = folder / name
        path.write_bytes(data)
        with contextlib.suppress(InputError):
            read(path)
        path.unlink()


Kind = tuple[Callable[[random.Random], Any], Callable[[Any, Path], None]]
KINDS: dict[str, Kind] = {
    "concepts": (fuzzing.concept_file, try_concept),
    "pictures": (fuzzing.picture_file, try_picture),
    "settings": (fuzzing.settings_text, try_settings),
    "prompts": (fuzzing.prompt_text, try_prompt),
    "texts": (fuzzing.text_file, try_text),
}


def run(kind: str, count: int, seed: int = 0, first: int = 0) -> dict[str, Any]:
    """Try the inputs `first` ... `first + count - 1`: how many failed and first how, the slowest, and memory."""
    make, attempt = KINDS[kind]
    failures, slowest, start = [], 0.0, time.process_time()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name, given_up(STUCK) as watch:
        folder = Path(name)
        with contextlib.suppress(Exception):  # the first one imports what it needs: not counted
            attempt(make(random.Random(0)), folder)
        for number in range(first, first + count):
            given = make(random.Random(f"{kind} {seed} {number}"))
            began = time.process_time()
            try:
                watch()
                attempt(given, folder)
            except Exception:
                failures.append(f"number {number}: {traceback.format_exc()}")
            slowest = max(slowest, time.process_time() - began)
    return {
        "kind": kind,
        "seed": seed,
        "first_number": first,
        "tried": count,
        "failed": len(failures),
        "first": failures[:1],
        "slowest": round(slowest, 4),
        "seconds": round(time.process_time() - start, 1),
        "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


@contextlib.contextmanager
def given_up(seconds: float) -> Iterator[Callable[[], None]]:
    """Yield what begins an input: from then on it has so many seconds of processor time."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def go_on(ledger: Path, seed: int, seconds: float, kinds: list[str]) -> Iterator[dict[str, Any]]:
    """Try what the goals still lack, the kinds in turn, in processes of their own, and write each chunk down."""
    end = time.monotonic() + seconds
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=CHUNKS_PER_PROCESS) as process:
        while time.monotonic() < end and (chunk := next_chunk(read_ledger(ledger), seed, kinds)):
            record = process.apply(run, chunk)
            ledger.parent.mkdir(parents=True, exist_ok=True)
            with ledger.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            yield record


def next_chunk(records: list[dict[str, Any]], seed: int, kinds: list[str]) -> tuple[str, int, int, int] | None:
    """What `run` tries next: kind, count, seed, first number. None where every goal is reached."""
    done = dict.fromkeys(kinds, 0)
    reached = dict.fromkeys(kinds, 0)
    for record in records:
        if record["kind"] in done:
            done[record["kind"]] += record["tried"]
            if record["seed"] == seed:
                reached[record["kind"]] = max(reached[record["kind"]], record["first_number"] + record["tried"])
    missing = [kind for kind in kinds if done[kind] < GOALS[kind]]
    if not missing:
        return None
    kind = min(missing, key=lambda kind: done[kind] / GOALS[kind])
    return kind, min(CHUNK, GOALS[kind] - done[kind]), seed, reached[kind]


def read_ledger(ledger: Path) -> list[dict[str, Any]]:
    """All chunks; a line that a kill cut off is none."""
    found = []
    for line in ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def table(records: list[dict[str, Any]]) -> str:
    """The counts of all runs as Markdown."""
    lines = ["| input | tried | of | failed | slowest, s | a second | memory, MiB |", "| --- |" + " ---: |" * 6]
    for kind, goal in GOALS.items():
        own = [record for record in records if record["kind"] == kind]
        if own:
            tried, seconds = (sum(record[key] for record in own) for key in ("tried", "seconds"))
            failed = sum(record["failed"] for record in own)
            slowest, memory = (max(record[key] for record in own) for key in ("slowest", "MiB"))
            rate = tried / max(seconds, 0.1)
            lines.append(f"| {kind} | {tried:,} | {goal:,} | {failed} | {slowest:.3f} | {rate:.0f} | {memory} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ledger", type=Path, default=Path("out/fuzz.jsonl"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    parser.add_argument("--count", type=int, help="so many inputs from --first on, and nothing written down")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="print the counts of the ledger")
    options = parser.parse_args()
    if options.table:
        print(table(read_ledger(options.ledger)))
        return 0
    kinds = options.kind or list(KINDS)
    if options.count:
        records = (run(kind, options.count, options.seed, options.first) for kind in kinds)
    else:
        records = go_on(options.ledger, options.seed, options.seconds, kinds)
    bad = 0
    for record in records:
        wrong = record["failed"] or record["slowest"] > SLOWEST
        bad += bool(wrong)
        if wrong or options.count:
            print(json.dumps(record), flush=True)
    print(table(read_ledger(options.ledger)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
