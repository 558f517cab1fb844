"""Every verb, killed before its n-th call to the file system: what must hold at the next start.

A child of this process, in which all is loaded, runs a verb and ends without a word before that call, as SIGKILL would
end it; another child looks at what it left. `python tests/kills.py` kills before each call, `--every 5` before each
fifth.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

# What Python tells of before it asks the system, as far as it concerns files.
CALLS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime"}
CALLS |= {"os.chmod", "os.listdir", "os.scandir", "fcntl.flock", "fcntl.lockf"}
KILLED, FAILED = 9, 1


@dataclass(frozen=True)
class Verb:
    """What is killed: `run(place)`, in a copy of the world; `again`: the next start, of verbs that write files."""

    run: Callable[[Path], Any]
    again: Callable[[Path], Any] | None = None


def in_child(
    task: Callable[[], Any], place: Path | None = None, before: int = 0, code: int | None = None
) -> tuple[int, str]:
    """Run a task in a child; its exit status and what it returned, as text.

    Args:
        place, before: end the child before its call number `before` on a file in `place`, counted from 1; 0 never.
        code: let what writes fail with this error of the system from that call on, instead.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as told:
            text = told.read()
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), text
    ended = FAILED
    try:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        counter = Counter(place, before, code) if place else None
        try:
            text, ended = str(task() if counter is None else counter.run(task)), 0
        except BaseException:
            text = traceback.format_exc()
        os.write(writer, text[-60_000:].encode("utf-8", "replace"))
    finally:
        os._exit(ended)


class Counter:
    """Counts the calls on files of a place; ends the process before one of them, or lets it and those after it fail."""

    def __init__(self, place: Path, before: int, code: int | None) -> None:
        self.root, self.before, self.code, self.seen, self.active = str(place), before, code, 0, False
        sys.addaudithook(self._on_event)

    def run(self, task: Callable[[], Any]) -> Any:
        """What the task returns; where nothing is to happen, how many calls it makes."""
        self.active = True
        try:
            result = task()
        finally:
            self.active = False
        return result if self.before else self.seen

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active or event not in CALLS or not self._concerns(event, arguments):
            return
        self.seen += 1
        if self.code is None and self.seen == self.before:
            os._exit(KILLED)
        if self.code is not None and self.seen >= self.before and writes(event, arguments, self.code):
            raise OSError(self.code, os.strerror(self.code), os.fsdecode(arguments[0]))

    def _concerns(self, event: str, arguments: tuple[Any, ...]) -> bool:
        """Locks are on open files; what is deleted within an open folder has no path."""
        texts = [os.fsdecode(part) for part in arguments[:2] if isinstance(part, (str, bytes, os.PathLike))]
        within = event in ("os.remove", "os.rmdir") and arguments[1] != -1
        return event.startswith("fcntl") or within or any(text.startswith(self.root) for text in texts)


def writes(event: str, arguments: tuple[Any, ...], code: int) -> bool:
    """Whether a call fails with this error: all that changes something, on a full disk what takes room."""
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    room = event in ("os.mkdir", "os.link", "os.symlink")
    return room if code == errno.ENOSPC else room or event in ("os.rename", "os.remove", "os.rmdir", "os.chmod")


class World:
    """A library for the tiny base, one concept in its trash, one to import, photos, and a folder to replace."""

    def __init__(self, root: Path) -> None:
        import torch

        from concepts import make_concept
        from spectral_fusion.concept import Concept, Library
        from test_report import make_evaluation
        from tiny import tiny_base
        from training import draw_photos

        torch.set_num_threads(1)
        self.template, self.base, self.evaluation = root / "template", tiny_base(), make_evaluation()
        library = Library(self.template / "concepts")
        targets = ("attn2.to_q",)
        names = ("rex", "tom", "bot", "old", "sue", "new")
        self.concepts: dict[str, Concept] = {
            name: make_concept(self.base, name, band=band, targets=targets, seed=band)
            for band, name in enumerate(names)
        }
        for name in names[:4]:
            library.add(self.concepts[name])
        draw_photos(library.folder("rex") / "images", count=2)
        library.remove("old")
        self.concepts["sue"].save(self.template / "sue.safetensors")
        draw_photos(self.template / "photos", count=2)
        (self.template / "out" / "model").mkdir(parents=True)
        (self.template / "out" / "model" / "mine.txt").write_text("the user's")
        self.known = set(tensors_of(self.template / "concepts"))

    def copy(self, root: Path) -> Path:
        """A place of its own for one kill."""
        return shutil.copytree(self.template, Path(tempfile.mkdtemp(dir=root)) / "place")


def tensors_of(root: Path) -> Iterator[str]:
    """What each concept file below a folder holds, its metadata left out."""
    from hashlib import sha256

    for file in root.rglob("concept.safetensors"):
        data = file.read_bytes()
        yield sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def faults(world: World, place: Path) -> list[str]:
    """What does not hold of a library at the start after a kill."""
    from spectral_fusion.atomic import LEFTOVER
    from spectral_fusion.concept import Concept, Library

    library = Library(place / "concepts")
    stock = library.stock()
    found = [f"unreadable: {bad.reason}" for bad in (*stock.unreadable, *stock.broken_claims)]
    for one, other in combinations(stock.concepts, 2):
        if one.base == other.base and one.may_share_band(other):
            found.append(f"{one.name} and {other.name} share a band")
        if one.trigger == other.trigger:
            found.append(f"{one.name} and {other.name} share a trigger")
    for info in stock.concepts:
        Concept.load(library.path(info.name))
    if gone := world.known - set(tensors_of(library.root)):
        found.append(f"{len(gone)} concepts are gone")
    found += [f"left over: {path}" for path in library.root.rglob("*") if LEFTOVER.fullmatch(path.name)]
    library.check()
    library.claim("free", "<free>", world.base.fingerprint, 4, directions=64)
    library.release("free")
    if not (place / "out" / "model").is_dir():
        found.append("the folder that was to be replaced is gone")
    return found


def outputs(place: Path) -> list[str]:
    """What the next start leaves half-written of the files that a verb wrote, which may lie anywhere."""
    from spectral_fusion.atomic import LEFTOVER, mend_unfinished

    mend_unfinished()
    return [f"left over: {path}" for path in (place / "out").rglob("*") if LEFTOVER.fullmatch(path.name)]


def verbs(world: World) -> dict[str, Verb]:
    """All that writes, by what the command line calls it."""
    from spectral_fusion.cli.export import write_lora
    from spectral_fusion.concept import Library
    from spectral_fusion.concept.trash import removed
    from spectral_fusion.fusion import fuse
    from spectral_fusion.generation import GenerateConfig, generate
    from spectral_fusion.picture import save_numbered
    from spectral_fusion.report import write_report, write_sheet
    from spectral_fusion.training import TrainConfig, train_concept
    from training import TINY_SETTINGS

    rex, tom = (world.concepts[name] for name in ("rex", "tom"))

    def library(place: Path) -> Library:
        return Library(place / "concepts")

    def train(place: Path, name: str = "ann", **how: Any) -> None:
        settings = TINY_SETTINGS | {"name": name, "steps": 2, "rank": 4, "target": ("attn2.to_q",)}
        train_concept(place / "photos", TrainConfig(**settings), library=library(place), base=world.base, **how)

    def save(place: Path, name: str) -> None:
        fuse(world.base, {rex: 1.0, tom: 1.0}).save(place / "out" / name, force=True)

    def export(place: Path) -> None:
        write_lora({rex: 1.0, tom: 0.5}, place / "out" / "two.safetensors", "kohya", half=False, force=True)

    def pictures(place: Path) -> None:
        made = generate(world.base, GenerateConfig("a dog", num_inference_steps=1, num_images=2))
        for one in made:
            save_numbered(one.image, place / "out", f"{one.seed}.png", one.parameters)

    def report(place: Path) -> None:
        write_report(world.evaluation, place / "out")
        write_sheet(world.evaluation, place / "out" / "sheet.png")

    def damaged(place: Path) -> None:
        root = library(place).root
        (root / "rex").rename(root / ".rex.abcdefgh.old")
        (root / ".trash" / ".tom@20260101T000000.000000.abcdefgh.part").mkdir()
        library(place).check()

    def twice(place: Path) -> None:
        library(place).add(world.concepts["new"], name="tom", trigger="<tom>", force=True)
        library(place).restore("tom", force=True, at=removed(library(place).root, "tom")[0].stamp)

    return {
        "add": Verb(lambda place: library(place).add(world.concepts["new"])),
        "add --force": Verb(
            lambda place: library(place).add(world.concepts["new"], name="rex", trigger="<rex>", force=True)
        ),
        "import": Verb(lambda place: library(place).add(place / "sue.safetensors")),
        "import --force": Verb(lambda place: library(place).add(place / "sue.safetensors", name="tom", force=True)),
        "remove": Verb(lambda place: library(place).remove("rex")),
        "restore": Verb(lambda place: library(place).restore("old")),
        "restore --force": Verb(twice),
        "rename": Verb(lambda place: library(place).rename("rex", "max")),
        "rename a trigger": Verb(lambda place: library(place).rename("rex", "<max>")),
        "check": Verb(damaged),
        "export": Verb(export, export),
        "fuse": Verb(lambda place: save(place, "other"), lambda place: save(place, "other")),
        "fuse --force": Verb(lambda place: save(place, "model"), lambda place: save(place, "model")),
        "generate": Verb(pictures, pictures),
        "evaluate": Verb(report, report),
        "train": Verb(train, lambda place: train(place, resume=True)),
        "train --force": Verb(lambda place: train(place, "rex", force=True)),
    }


def kill(world: World, verb: Verb, root: Path, before: int) -> list[str]:
    """Kill a verb once; what did not hold afterwards."""
    place = world.copy(root)
    try:
        os.environ["SPECTRAL_FUSION_CACHE"] = str(place / "cache")
        code, text = in_child(lambda: verb.run(place), place, before)
        if code != KILLED:
            return [f"not killed but ended with {code}: {text}"]

        def look() -> str:
            left = outputs(place)
            if verb.again is not None:
                verb.again(place)
            return "\n".join([*left, *faults(world, place)])

        code, text = in_child(look)
        return text.splitlines() if code == 0 else [f"the next start fails: {text}"]
    finally:
        shutil.rmtree(place.parent)


def run(names: list[str] | None = None, every: int = 1, most: int | None = None) -> Iterator[dict[str, Any]]:
    """Kill each verb before every so many of its calls; a record of each verb."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for name, verb in verbs(world).items():
            if names and name not in names:
                continue
            begin, place = time.monotonic(), world.copy(Path(folder))
            os.environ["SPECTRAL_FUSION_CACHE"] = str(place / "cache")
            code, text = in_child(lambda place=place, verb=verb: verb.run(place), place)
            if code:
                raise RuntimeError(f"{name} fails without a kill: {text}")
            calls = int(text)
            step = max(every, -(-calls // most)) if most else every
            places = range(1, calls + 1, step)
            bad = [f"before call {n}: {line}" for n in places for line in kill(world, verb, Path(folder), n)]
            record = {"verb": name, "calls": calls, "kills": len(places), "faults": len(bad), "first": bad[:3]}
            yield record | {"seconds": round(time.monotonic() - begin, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verb", action="append")
    parser.add_argument("--every", type=int, default=1, help="kill before each so many calls")
    parser.add_argument("--most", type=int, help="kills of each verb, evenly spread")
    options = parser.parse_args()
    kills = bad = 0
    for record in run(options.verb, options.every, options.most):
        print(json.dumps(record), flush=True)
        kills, bad = kills + record["kills"], bad + record["faults"]
    print(json.dumps({"kills": kills, "faults": bad}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
