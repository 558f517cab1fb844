"""Concepts and LoRAs that pictures were made with lately, in memory.

Most pictures have the subjects of the one before, and reading a file anew takes time, and memory for good: safetensors
keeps some bytes of every tensor that is read.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

LARGEST = 2**29  # bytes of files; in memory those of halves take twice as much
MOST = 16

T = TypeVar("T")
Stamp = tuple[int, int, int]


class Subjects:
    """What was read from files, for as long as they stay as they are: by path, time, size and number of the file.

    The ones used last are kept, `most` of them, whose files have `largest` bytes together at most.
    """

    def __init__(self, most: int = MOST, largest: int = LARGEST) -> None:
        self.most, self.largest = most, largest
        self._kept: OrderedDict[Path, tuple[Stamp, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, file: Path, read: Callable[[], T]) -> T:
        """What `read` returns of a file, now or before; raises what it raises."""
        try:
            stamp = _stamp(file)  # before it is read: what changes meanwhile is read again
        except OSError:
            return read()  # which says what is wrong with it
        with self._lock:
            known = self._kept.pop(file, None)
            if known is not None and known[0] == stamp:
                self._kept[file] = known
                return known[1]  # what `read` returned
        found = read()
        with self._lock:
            self._kept[file] = stamp, found
            while self._kept and (len(self._kept) > self.most or self._bytes() > self.largest):
                self._kept.popitem(last=False)
        return found

    def _bytes(self) -> int:
        return sum(size for (_, size, _), _ in self._kept.values())


def _stamp(file: Path) -> Stamp:
    found = os.stat(file)
    return found.st_mtime_ns, found.st_size, found.st_ino
