"""Looking through a library: what is wrong with it, what of that was mended, and what its owner must do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from spectral_fusion.concept.claim import Claim
from spectral_fusion.concept.holdings import CLAIM, TRAINING, TRASH, Holdings, folders, mend_library, take_stock
from spectral_fusion.concept.locks import is_training
from spectral_fusion.concept.read import FILE_NAME, read_info, rewrite
from spectral_fusion.errors import InputError
from spectral_fusion.names import key
from spectral_fusion.spectral import Band

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
    first: dict[str, str] = {}
    for name, trigger in stock.triggers():
        owner = first.setdefault(key(trigger), name)
        if owner != name:
            yield Finding(
                root / name, f"has the trigger {trigger} of {owner!r}; give it another with `concepts rename`"
            )
    held = [Held(info.name, info.base, info.band, info.directions) for info in stock.concepts]
    held += [Held(name, claim.base, claim.band) for name, claim in stock.claims]
    for one, other in sorted(meetings(held)):
        yield Finding(root / other, f"shares a band with {one!r}, so these two cannot be fused together")


class Held(NamedTuple):
    """A band that somebody has. `directions`: of a concept's smallest layer; 0 of a training, not known yet."""

    name: str
    base: str
    band: Band
    directions: int = 0


def meetings(held: Iterable[Held]) -> set[tuple[str, str]]:
    """The names of each two whose bands may meet, as `ConceptInfo.may_share_band`; not every pair is looked at."""
    bases: dict[str, list[Held]] = {}
    for one in held:
        bases.setdefault(one.base, []).append(one)
    return {pair for same_base in bases.values() for pair in _meetings(same_base)}


def _meetings(held: list[Held]) -> Iterator[tuple[str, str]]:
    """Those of one base: their spans are passed from the first direction on, for each size of a smallest layer."""
    for directions in {one.directions for one in held}:
        spans = [(one.band.within(directions), one) for one in held if one.directions <= directions]
        present: list[tuple[range, Held]] = []
        for span, one in sorted(spans, key=lambda pair: pair[0].start):
            present = [(other, owner) for other, owner in present if other.stop > span.start]
            for _, owner in present:
                if max(owner.directions, one.directions) == directions and owner.name != one.name:
                    yield min(owner.name, one.name), max(owner.name, one.name)
            present.append((span, one))


def _trash(folder: Path) -> Iterator[Finding]:
    if not any(folder.iterdir()):
        folder.rmdir()
        yield Finding(folder, "an empty folder in the trash", "deleted")
