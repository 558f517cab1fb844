"""The header of a safetensors file, read without loading a tensor; and what other files are by their first bytes."""

import json
import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from spectral_fusion.errors import InputError

MAX_HEADER = 100_000_000  # bytes, the limit of the format's own library
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
BITS = re.compile(r"(\d+)")


@dataclass(frozen=True, eq=False)
class Header:
    """Names, shapes and types of a file's tensors, and its metadata.

    Attributes:
        shapes: tensor name -> shape.
        dtypes: tensor name -> type as the format writes it: `F32`, `BF16`, `F8_E4M3`.
        metadata: the file's text metadata.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str] = field(default_factory=dict, repr=False)
    metadata: dict[str, str] = field(default_factory=dict)

    @cached_property
    def text(self) -> str:
        """All names, one a line: a pattern with `(?m)^` is tried on thousands of names at once."""
        return "\n".join(self.shapes)

    def has(self, pattern: str) -> bool:
        """Whether a name matches; `^` and `$` are the ends of a name."""
        return re.search(pattern, self.text, re.MULTILINE) is not None

    def keys(self, pattern: str) -> Iterator[str]:
        """The names that match, in the file's order."""
        compiled = re.compile(pattern)
        return (key for key in self.shapes if compiled.search(key))

    def shape(self, pattern: str) -> tuple[int, ...] | None:
        """The shape of the first tensor whose name matches; None where there is none."""
        return next((self.shapes[key] for key in self.keys(pattern)), None)


def read_header(path: str | Path, what: str = "file") -> Header:
    """Read a file's header.

    Args:
        what: how errors call the file: "base models/x.safetensors is ...".

    Raises:
        InputError: the file is missing, cut off or no safetensors file; the message says what it is.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{what} {path} does not exist; check the path")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = file.read(9)
            if other := _other_format(start):
                raise InputError(f"{what} {path} is {other}; get the .safetensors file of this model")
            (length,) = struct.unpack("<Q", start[:8]) if len(start) == 9 else (0,)
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ValueError("no header" if length > MAX_HEADER else "cut off")
            file.seek(8)
            entries = json.loads(file.read(length).decode("utf-8"))
        return _header(path, entries, size - 8 - length)
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise InputError(
            f"{what} {path} ({size} bytes) is not a readable safetensors file ({reason}); download it again"
        ) from error


def _other_format(start: bytes) -> str | None:
    """What a file of these first nine bytes is, if no safetensors file: those go on with `{` after a length."""
    if start[8:] == b"{":
        return None
    if start.startswith(b"GGUF"):
        return "a GGUF file, quantised for llama.cpp"
    return "a pickle, which runs code when opened" if start.startswith(PICKLE_STARTS) else None


def _header(path: Path, entries: dict[str, Any], data_bytes: int) -> Header:
    metadata = entries.pop("__metadata__", None) or {}
    shapes = {str(key): tuple(int(edge) for edge in entry["shape"]) for key, entry in entries.items()}
    dtypes = {str(key): str(entry["dtype"]) for key, entry in entries.items()}
    if _end(entries.values()) > data_bytes:
        raise ValueError("cut off")
    for key, entry in entries.items():
        begin, end = entry["data_offsets"]
        bits = int(found[1]) if (found := BITS.search(dtypes[key])) else 8
        if end - begin != math.ceil(math.prod(shapes[key]) * bits / 8):
            raise ValueError(f"tensor {key} has the wrong size")
    return Header(path, shapes, dtypes, {str(key): str(value) for key, value in metadata.items()})


def _end(entries: Iterable[dict[str, Any]]) -> int:
    return max((entry["data_offsets"][1] for entry in entries), default=0)
