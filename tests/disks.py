"""Every verb on a disk that is full, read-only, closed to it, or without locks: one line, and nothing lost.

As `kills.py`, in children of a process in which all is loaded: `python tests/disks.py`.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kills import Verb, World, faults, in_child, outputs, verbs
from spectral_fusion.errors import InputError

SHORT = (0, 100, 5000)  # bytes after which a file cannot grow
CODES = {"full": errno.ENOSPC, "read-only": errno.EROFS, "no permission": errno.EACCES}


def in_one_line(task: Callable[[], Any]) -> Callable[[], str]:
    """The task, or what the command line says where it fails as it may: in one line."""

    def run() -> str:
        from spectral_fusion.cli import error_line

        try:
            task()
        except (InputError, OSError) as error:
            line = error_line(error)
            if not line or len(line.splitlines()) != 1:
                raise AssertionError(f"not one line: {line!r}") from error
            return line
        return "done"

    return run


def cannot_grow(task: Callable[[], Any], size: int) -> Callable[[], Any]:
    """The task where no file can be longer than so many bytes: a disk that fills up within a file."""

    def run() -> Any:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return task()

    return run


def without_locks(task: Callable[[], Any]) -> Callable[[], Any]:
    """The task where files cannot be locked, as on some network disks."""

    def run() -> Any:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        fcntl.flock = refuse  # type: ignore[assignment]
        return task()

    return run


def troubles(verb: Verb, place: Path, calls: int, most: int) -> Iterator[tuple[str, Callable[[], tuple[int, str]]]]:
    """Every trouble of one verb, and what meets it: in place, once."""
    task = in_one_line(lambda: verb.run(place))
    for name, code in CODES.items():
        for before in range(1, calls + 1, max(1, -(-calls // most))):
            yield f"{name} from call {before}", lambda b=before, c=code: in_child(task, place, b, c)  # type: ignore[misc]
    for size in SHORT:
        yield f"full after {size} bytes of a file", lambda s=size: in_child(cannot_grow(task, s))  # type: ignore[misc]
    yield "no locks", lambda: in_child(without_locks(task))


def run(names: list[str] | None = None, most: int = 6) -> Iterator[dict[str, Any]]:
    """Try each verb in all troubles, each of `CODES` from so many of its calls on; a record of each verb."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for name, verb in verbs(world).items():
            if names and name not in names:
                continue
            place = world.copy(Path(folder))
            os.environ["SPECTRAL_FUSION_CACHE"] = str(place / "cache")
            code, text = in_child(lambda place=place, verb=verb: verb.run(place), place)
            if code:
                raise RuntimeError(f"{name} fails by itself: {text}")
            bad, said, tried = [], set(), 0
            for trouble, meet in troubles(verb, place, int(text), most):
                shutil.rmtree(place)
                shutil.copytree(world.template, place)
                code, line = meet()
                code_after, after = in_child(lambda place=place, verb=verb: _after(world, verb, place))
                wrong = [line] if code else []
                wrong += after.splitlines() if code_after == 0 else [f"the next start fails: {after}"]
                bad += [f"{trouble}: {one}" for one in wrong]
                said.add(line.replace(str(place), "PLACE"))
                tried += 1
            yield {"verb": name, "troubles": tried, "faults": len(bad), "first": bad[:3], "said": sorted(said)[:4]}


def _after(world: World, verb: Verb, place: Path) -> str:
    if verb.again is not None:
        verb.again(place)
    return "\n".join([*faults(world, place), *outputs(place)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verb", action="append")
    parser.add_argument("--most", type=int, default=6, help="calls of each verb from which a trouble begins")
    options = parser.parse_args()
    tried = bad = 0
    for record in run(options.verb, options.most):
        print(json.dumps(record), flush=True)
        tried, bad = tried + record["troubles"], bad + record["faults"]
    print(json.dumps({"troubles": tried, "faults": bad}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
