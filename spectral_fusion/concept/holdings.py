"""What lies in the folder of a library: concepts, claims of trainings, and what can be read as neither."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from spectral_fusion.atomic import Leftover, mend
from spectral_fusion.concept.claim import Claim
from spectral_fusion.concept.metadata import ConceptInfo
from spectral_fusion.concept.notes import NOTES, read_notes
from spectral_fusion.concept.read import FILE_NAME, open_concept
from spectral_fusion.errors import InputError, MissingError, printable
from spectral_fusion.names import check_name, key, normal, same
from spectral_fusion.spectral import Band

CLAIM = "claim.json"
TRASH = ".trash"
TRAINING = "training"
TRIES = 4  # to read a file that others may move away and back

T = TypeVar("T")


@dataclass(frozen=True)
class Unreadable:
    """A folder or file of a library that cannot be used, and why."""

    name: str
    path: Path
    reason: str


@dataclass(frozen=True)
class Holdings:
    """All that a library holds, each under its folder's name. A concept and a claim may be of one name."""

    concepts: tuple[ConceptInfo, ...]
    claims: tuple[tuple[str, Claim], ...]
    unreadable: tuple[Unreadable, ...]
    broken_claims: tuple[Unreadable, ...]
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name -> tags, of the concepts that have some."""

    def search(self, words: str = "", tag: str | None = None) -> list[ConceptInfo]:
        """The concepts that say each of the words somewhere: in name, trigger, class, base or a tag; case is nothing.

        Args:
            tag: only those that have this tag.
        """
        wanted = [key(word) for word in words.split()]
        found = []
        for info in self.concepts:
            tags = [key(own) for own in self.tags.get(info.name, ())]
            said = " ".join([key(f"{info.name} {info.trigger} {info.class_word} {info.base_name} {info.base}"), *tags])
            if all(word in said for word in wanted) and (tag is None or key(tag) in tags):
                found.append(info)
        return found

    def bands(self, base: str) -> list[tuple[str, Band]]:
        """Every band that is taken on a base, and by whom; one name may have two while it is trained again."""
        finished = [(info.name, info.band) for info in self.concepts if info.base == base]
        return finished + [(name, claim.band) for name, claim in self.claims if claim.base == base]

    def triggers(self) -> list[tuple[str, str]]:
        """Every trigger that is taken, and by whom."""
        finished = [(info.name, info.trigger) for info in self.concepts]
        return finished + [(name, claim.trigger) for name, claim in self.claims]

    def directions(self, base: str) -> int | None:
        """Where the bands of a base end, as its concepts say."""
        return min((info.directions for info in self.concepts if info.base == base), default=None)

    def sharing(self, info: ConceptInfo) -> list[str]:
        """Names of the concepts and trainings, itself too, whose band can meet that of a concept on its base."""
        finished = [other.name for other in self.concepts if other.base == info.base and info.may_share_band(other)]
        claims = [(name, claim.band) for name, claim in self.claims if claim.base == info.base]
        return finished + [name for name, band in claims if band.overlaps(info.band, info.directions)]

    def refuse_band(self, band: Band, base: str, directions: int | None, *, but: str) -> None:
        """Raises InputError where another concept or training has a band that meets this one."""
        for name, used in self.bands(base):
            if name != but and used.overlaps(band, directions):
                raise InputError(f"{band} overlaps that of {name!r} ({used}); choose another band, or auto")

    def refuse_trigger(self, trigger: str, *, but: str) -> None:
        """Raises InputError where another concept or training has this trigger."""
        for name, owned in self.triggers():
            if name != but and same(owned, trigger):
                raise InputError(f"trigger {trigger} belongs to concept {name!r} of this library; choose another")

    def require_claims(self) -> "Holdings":
        """The same; raises InputError where a claim cannot be read, so that its band is not known."""
        if self.broken_claims:
            raise InputError(self.broken_claims[0].reason)
        return self


class Reader:
    """Reads what lies in the folder of a concept. An index does so too, from memory where nothing has changed."""

    def info(self, folder: Path) -> ConceptInfo:
        """The metadata of the concept. Raises InputError or OSError where it cannot be read."""
        return read_entry(folder)

    def tags(self, folder: Path) -> tuple[str, ...]:
        """The tags that a person gave it."""
        return read_notes(folder / NOTES).tags


def take_stock(root: Path, reader: Reader | None = None) -> Holdings:
    """Read all headers. One bad file takes no other down, and what goes away meanwhile is not there."""
    reader = reader or Reader()
    concepts, claims, unreadable, broken = [], [], [], []
    tags = {}
    for folder in folders(root):
        names = contents(folder)
        file, claim = folder / FILE_NAME, folder / CLAIM
        try:
            if FILE_NAME in names:
                concepts.append(_steady(lambda: reader.info(folder), file))  # noqa: B023  # called at once
                if NOTES in names and (own := reader.tags(folder)):
                    tags[concepts[-1].name] = own
        except (InputError, OSError) as error:
            if not _away(file, error):
                unreadable.append(Unreadable(normal(folder.name), file, printable(str(error))))
        try:
            if CLAIM in names:
                claims.append((normal(folder.name), _steady(lambda: Claim.load(claim), claim)))  # noqa: B023
        except (InputError, OSError) as error:
            if not _away(claim, error):
                broken.append(Unreadable(normal(folder.name), claim, printable(str(error))))
    return Holdings(tuple(concepts), tuple(claims), tuple(unreadable), tuple(broken), tags)


def _steady(read: Callable[[], T], path: Path) -> T:
    """What is read of a file. Once more where that fails: it may have gone away and come back in between."""
    for left in reversed(range(TRIES)):
        try:
            return read()
        except (InputError, OSError):
            if not left or not os.path.lexists(path):
                raise
    raise AssertionError  # never: the last try returns or raises


def _away(path: Path, error: Exception) -> bool:
    """Whether a file was read while it was not there, so that the library did not hold it then.

    It may be back by now. A link that leads nowhere is there, and broken.
    """
    missed = isinstance(error, (MissingError, FileNotFoundError, NotADirectoryError))
    return not os.path.lexists(path) or (missed and not path.is_symlink())


def read_entry(folder: Path) -> ConceptInfo:
    """The metadata of the concept in a folder, under the folder's name: it may have been renamed by hand."""
    name = check_name(folder.name)
    with open_concept(folder / FILE_NAME) as (info, _):
        return info if info.name == name else replace(info, name=name)


def folders(root: Path) -> Iterator[Path]:
    """The folders of a library in order of their names; hidden ones are not of it."""
    try:
        with os.scandir(root) as entries:
            found = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return
    yield from (root / name for name in found)


def contents(folder: Path) -> list[str]:
    """The names in a folder; none where it went away or cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def find_folder(root: Path, name: str) -> Path | None:
    """The folder of this name, else one whose name is the same but for its case or Unicode form."""
    found = list(folders(root))
    exact = (folder for folder in found if folder.name == name or normal(folder.name) == normal(name))
    return next(exact, next((folder for folder in found if same(folder.name, name)), None))


def mend_library(root: Path) -> list[Leftover]:
    """Finish or undo what killed processes left anywhere in a library, and say what was done."""
    done = mend(root) + mend(root / TRASH)
    for entry in [*folders(root), *folders(root / TRASH)]:
        names = contents(entry)
        if any(name.startswith(".") for name in names):
            done += mend(entry)
        if TRAINING in names:
            for path, _, _ in os.walk(entry / TRAINING):
                done += mend(Path(path))
    return done
