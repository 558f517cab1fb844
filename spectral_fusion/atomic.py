"""Writing that happens whole or not at all: to a temporary file or folder beside the target, then a rename.

A process that is killed leaves its temporary entry, `.<name>.<token>.part`, and for a folder perhaps the one that it
was replacing, `.<name>.<token>.old`. The next write to the same target, `mend`, and the next start by `mend_unfinished`
recognise these: a writer holds a lock on its entry, which the system drops with the process, so what is not locked was
left behind.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safetensors import SafetensorError

from spectral_fusion import unfinished
from spectral_fusion.errors import InputError, shown

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from torch import Tensor

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<token>[a-z0-9_]{8})\.(?P<kind>part|old)", re.DOTALL)
SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
ABANDONED = 24 * 3600.0  # seconds after which an entry counts as left behind where the file system has no locks


@dataclass(frozen=True)
class Leftover:
    """What a killed process left, and what `mend` did: it finished the write, put the old folder back, or deleted."""

    path: Path
    target: Path
    outcome: Literal["finished", "put back", "deleted"]


@contextmanager
def atomic_file(path: Path, *, exclusive: bool = False) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it replaces `path` on success and is gone on failure.

    Args:
        exclusive: never replace; raises FileExistsError where `path` exists when the writing is done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mend(path.parent, path.name.__eq__)
    with unfinished.noted(path), _reserved(path, _create_file) as part, _plain_errors(path):
        try:
            yield part
            if exclusive:
                _move_new(part, path)
            else:
                os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; it takes the place of `path` on success and is gone on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mend(path.parent, path.name.__eq__)
    with unfinished.noted(path), _reserved(path, os.mkdir) as fresh, _plain_errors(path):
        old = fresh.with_suffix(".old")
        try:
            yield fresh
            if path.exists():
                path.rename(old)
            fresh.rename(path)
        except BaseException:
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)


def mend(folder: Path, names: Callable[[str], bool] | None = None) -> list[Leftover]:
    """Finish or undo what killed writers left directly in `folder`; what a living one writes is not touched.

    A folder that was complete takes its place, a half-written one and its file go, and the replaced one comes back
    where nothing took its place. Nothing is raised: a folder that cannot be changed keeps its leftovers.

    Args:
        names: which targets to look at. None: all.
    """
    found = []
    for entry, target in _leftovers(folder, names):
        if outcome := _settle(entry, target):
            found.append(Leftover(entry, target, outcome))
    return found


def mend_unfinished() -> list[Leftover]:
    """`mend` what killed processes of this user were writing, wherever it lies; for the start of a process."""
    found = []
    for note, target in unfinished.targets():
        found += mend(target.parent, target.name.__eq__)
        if not any(_leftovers(target.parent, target.name.__eq__)):  # else it is being written, or cannot be changed
            with suppress(OSError):
                note.unlink(missing_ok=True)
    return found


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers of files left in `folder`, at any depth.

    Only for a folder in which nobody else is writing now.
    """
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def refuse_undecodable(path: Path) -> None:
    """Raises InputError where a path is no text: the safetensors library opens no such file."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(f"the path {shown(str(path))} is not UTF-8; rename the folder or file") from None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on its content alone: the library's own writer shuffles metadata."""
    from safetensors.torch import save

    refuse_undecodable(path)
    data = save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, dict(metadata))
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        file.write(memoryview(data)[end:])


@contextmanager
def _reserved(path: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """A new entry beside `path`, locked until the end of the context."""
    while True:
        entry = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        create(entry)
        with suppress(FileNotFoundError):  # `mend` elsewhere took it for a leftover before it was locked: once more
            handle = _lock(entry, wait=True)
            if entry.exists():
                break
            _unlock(handle)
    try:
        yield entry
    finally:
        _unlock(handle)


def _leftovers(folder: Path, names: Callable[[str], bool] | None) -> list[tuple[Path, Path]]:
    """Temporary entries directly in a folder and their targets; none where the folder cannot be listed."""
    try:
        entries = sorted(entry.name for entry in os.scandir(folder) if entry.name.startswith("."))
    except OSError:
        return []
    matches = (match for entry in entries if (match := LEFTOVER.fullmatch(entry)))
    return [(folder / match[0], folder / match["name"]) for match in matches if names is None or names(match["name"])]


def _create_file(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # the system applies the umask


def _move_new(part: Path, path: Path) -> None:
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: reserve the name, then replace it
        _create_file(path)
        os.replace(part, path)


def _settle(entry: Path, target: Path) -> Literal["finished", "put back", "deleted"] | None:
    """What was done about one leftover; None where it is in use, gone, or cannot be changed."""
    complete, old = entry.with_suffix(".part"), entry.with_suffix(".old")
    holder = complete if complete.exists() else entry
    try:
        handle = _lock(holder, wait=False)
    except OSError:
        return None
    try:
        if not entry.exists():
            return None
        if old.exists() and not target.exists():
            holder.rename(target)
            shutil.rmtree(old, ignore_errors=True)
            return "finished" if holder == complete else "put back"
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
        return "deleted"
    except OSError:
        return None
    finally:
        _unlock(handle)


def _lock(path: Path, *, wait: bool) -> int | None:
    """An open handle that holds a lock on `path`; None where the system has none.

    Raises:
        OSError: another process holds it, or, where there are no locks and `wait` is False, it may still be in use.
    """
    if sys.platform != "win32":
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return handle
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES) and not wait:
                raise
    if not wait and time.time() - path.stat().st_mtime < ABANDONED:
        raise BlockingIOError(errno.EWOULDBLOCK, "may be in use", str(path))
    return None


def _unlock(handle: int | None) -> None:
    if handle is not None:
        with suppress(OSError):
            os.close(handle)


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """Errors of the system, such as a full disk, name the file; those of the safetensors library become such errors."""
    try:
        yield
    except SafetensorError as error:
        code = SYSTEM_ERROR.search(str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    except OSError as error:
        if error.filename is None and error.errno is not None:  # of a write: the system knows no name there
            error.filename = str(path)
        raise
