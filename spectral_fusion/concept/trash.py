"""What was removed from a library, or replaced in it, and can come back."""

import re
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from spectral_fusion.atomic import atomic_folder
from spectral_fusion.concept.holdings import CLAIM, TRASH, folders
from spectral_fusion.concept.read import FILE_NAME
from spectral_fusion.errors import InputError
from spectral_fusion.names import normal, same

ENTRY = re.compile(r"(?P<name>[^.@][^@]*)@(?P<stamp>\d{8}T\d{6}\.\d{6})")
STAMP = "%Y%m%dT%H%M%S.%f"
LONGEST = 200  # bytes of a name in the trash; what was put here by hand may have a longer one


@dataclass(frozen=True)
class Removed:
    """One entry of the trash: a folder that was removed, or a file that another one replaced."""

    name: str
    stamp: str
    path: Path

    @property
    def has_concept(self) -> bool:
        """Whether there is a concept in it."""
        return (self.path / FILE_NAME).is_file()

    @property
    def has_claim(self) -> bool:
        """Whether there is a stopped training in it."""
        return (self.path / CLAIM).is_file()

    @property
    def only_file(self) -> bool:
        """Whether there is nothing but the concept's file in it."""
        return [entry.name for entry in self.path.iterdir()] == [FILE_NAME]

    @property
    def when(self) -> datetime:
        """When it was put here, in UTC."""
        return datetime.strptime(self.stamp, STAMP).replace(tzinfo=timezone.utc)


def removed(root: Path, name: str | None = None) -> list[Removed]:
    """The entries of a library's trash, of one name or of all, the last first. Half-written ones are none."""
    found = []
    for path in folders(root / TRASH):
        match = ENTRY.fullmatch(path.name)
        if match and (name is None or same(match["name"], name)):
            found.append(Removed(normal(match["name"]), match["stamp"], path))
    return sorted(found, key=lambda entry: entry.stamp, reverse=True)


def new_entry(root: Path, name: str) -> Path:
    """A path for what goes to the trash now; later than all that is there, even where the clock was set back."""
    (root / TRASH).mkdir(parents=True, exist_ok=True)
    while len(name.encode(errors="surrogatepass")) > LONGEST:
        name = name[:-1]
    now = datetime.now(timezone.utc)
    if last := next((entry.when for entry in removed(root)), None):
        now = max(now, last + timedelta(microseconds=1))
    return root / TRASH / f"{name}@{now:{STAMP}}"


def find_removed(root: Path, name: str, at: str | None) -> Removed:
    """The entry of this name and time, else the last one that holds a concept.

    Raises:
        InputError: there is none.
    """
    entries = [entry for entry in removed(root, name) if at in (None, entry.stamp)]
    if not entries:
        when = f" of {at}" if at else ""
        raise InputError(f"no concept {name!r}{when} in the trash of {root}; nothing to restore")
    if found := next((entry for entry in entries if entry.has_concept), None):
        return found
    raise InputError(f"{name!r} in the trash of {root} is a training that was stopped, not a concept; start it again")


def put_copy(root: Path, file: Path, name: str) -> None:
    """Keep a copy of a concept's file that is about to be replaced."""
    with atomic_folder(new_entry(root, name)) as entry:
        shutil.copy2(file, entry)


def bring_back(root: Path, entry: Removed, folder: Path) -> None:
    """Move an entry to `folder`; what lies there goes to the trash, the file alone where the entry is only a file."""
    if not folder.exists():
        entry.path.rename(folder)
    elif entry.only_file and (folder / FILE_NAME).exists():
        put_copy(root, folder / FILE_NAME, folder.name)
        (entry.path / FILE_NAME).replace(folder / FILE_NAME)
        entry.path.rmdir()
    else:
        folder.rename(new_entry(root, folder.name))
        entry.path.rename(folder)
