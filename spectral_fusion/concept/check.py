"""Looking through a library: what is wrong with it, what of that was mended, and what its owner must do."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from spectral_fusion.concept.claim import Claim
from spectral_fusion.concept.holdings import CLAIM, TRAINING, TRASH, Holdings, folders, mend_library, take_stock
from spectral_fusion.concept.locks import is_training
from spectral_fusion.concept.read import FILE_NAME, read_info, rewrite
from spectral_fusion.errors import InputError
from spectral_fusion.names import key

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Finding:
    """One thing that was wrong. `done`: what was done about it; empty where the owner must."""

    path: Path
    what: str
    done: str = ""


def look_through(root: Path) -> list[Finding]:
    """Everything that is wrong with a library, after mending what can be mended; the caller holds its lock."""
    findings = [
        Finding(left.path, f"left behind by a killed process, for {left.target.name}", left.outcome)
        for left in mend_library(root)
    ]
    findings += [finding for folder in folders(root) for finding in _folder(root, folder)]
    stock = take_stock(root)
    findings += [Finding(bad.path, bad.reason) for bad in stock.unreadable]
    findings += _shared(root, stock)
    findings += [finding for folder in folders(root / TRASH) for finding in _trash(folder)]
    return findings


def _folder(root: Path, folder: Path) -> Iterator[Finding]:
    """What is wrong with one concept's folder."""
    file, claim = folder / FILE_NAME, folder / CLAIM
    if claim.exists() and not is_training(root, folder.name):
        yield from _claim(folder, claim)
    if not any(folder.iterdir()):
        folder.rmdir()
        yield Finding(folder, "an empty folder", "deleted")
        return
    if not file.exists() and not claim.exists():
        yield Finding(folder, "neither a concept nor a training, so it is not listed; move it elsewhere")
        return
    try:
        info = read_info(file) if file.exists() else None
    except InputError:
        return  # `take_stock` says what is wrong with it
    if info and key(info.name) != key(folder.name):
        try:
            rewrite(file, file, replace(info, name=folder.name))
        except InputError as error:
            yield Finding(folder, f"the folder of {info.name!r} has a name that no concept can have: {error}")
            return
        yield Finding(folder, f"holds a concept called {info.name!r}", "called as its folder")


def _claim(folder: Path, path: Path) -> Iterator[Finding]:
    """What is wrong with the claim of a training that does not run now."""
    stopped = (folder / TRAINING / CHECKPOINT).is_file()
    try:
        claim = Claim.load(path)
    except InputError as error:
        if stopped:
            yield Finding(path, f"{error}; the stopped training reserves it again with --resume")
        path.unlink()
        yield Finding(path, "the claim of a training cannot be read", "deleted: it only reserves a band")
        return
    if stopped:
        return
    if _fills(folder / FILE_NAME, claim):
        path.unlink()
        yield Finding(path, "reserves a band that the finished concept has", "deleted")
    elif not (folder / FILE_NAME).exists():
        path.unlink()
        yield Finding(path, "reserves a band for a training that ended before its first checkpoint", "deleted")


def _fills(file: Path, claim: Claim) -> bool:
    try:
        info = read_info(file)
    except InputError:
        return False
    return (info.trigger, info.base, info.band) == (claim.trigger, claim.base, claim.band)


def _shared(root: Path, stock: Holdings) -> Iterator[Finding]:
    """Triggers and bands that two own."""
    for (first, one), (second, other) in combinations(stock.triggers(), 2):
        if first != second and key(one) == key(other):
            yield Finding(
                root / second, f"has the trigger {other} of {first!r}; give it another with `concepts rename`"
            )
    for info in stock.concepts:
        for name in stock.sharing(info):
            if name > info.name:
                yield Finding(root / name, f"shares a band with {info.name!r}, so these two cannot be fused together")


def _trash(folder: Path) -> Iterator[Finding]:
    if not any(folder.iterdir()):
        folder.rmdir()
        yield Finding(folder, "an empty folder in the trash", "deleted")
