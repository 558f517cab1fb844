"""Locks of a library's files: the system holds them for a process, and lets go when it ends, however it ends."""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spectral_fusion.errors import InputError
from spectral_fusion.names import key

LOCKS = ".locks"
LONGEST = 200  # bytes of a file name before its ending
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)  # as network disks answer


@contextmanager
def held(path: Path, *, seconds: float, busy: str) -> Iterator[None]:
    """Hold a lock within the `with` block.

    Args:
        seconds: how long to wait for another process.
        busy: the message where that was not long enough.

    Raises:
        InputError: another process holds it, or the disk has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise InputError(busy) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        raise InputError(
            f"{path.parent} cannot be locked, so that two processes could change it at once; put the library on a "
            "disk that has locks"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_training(root: Path, name: str) -> bool:
    """Whether a process trains a concept of this name now."""
    path = training_lock(root, name)
    if not path.exists():
        return False
    try:
        with held(path, seconds=0, busy="trains"):
            return False
    except InputError as error:
        return str(error) == "trains"


def training_lock(root: Path, name: str) -> Path:
    """The file that a training holds locked while it runs: one of all forms of a name."""
    plain = key(name)
    if len(plain.encode(errors="surrogatepass")) > LONGEST:
        plain = hashlib.sha256(plain.encode(errors="surrogatepass")).hexdigest()
    return root / LOCKS / f"{plain}.lock"
