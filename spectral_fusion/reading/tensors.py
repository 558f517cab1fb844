"""Safetensors files: the header checked in full before a tensor is read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from spectral_fusion.atomic import refuse_undecodable
from spectral_fusion.errors import InputError, MissingError, shown
from spectral_fusion.reading.text import require_file

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")  # the second byte; the first is 0x80
LARGEST_HEADER = 64 * 2**20  # bytes; that of a full-size base takes one
LARGEST_SIDE = 2**31


@dataclass(frozen=True)
class TensorFile:
    """An open safetensors file: its metadata, and shape and type of each tensor (types as the format calls them)."""

    path: Path
    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]
    _file: Any = field(repr=False)

    def read(self, key: str) -> Tensor:
        """One tensor, as stored. Raises InputError where the file is broken there."""
        try:
            return self._file.get_tensor(key)
        except (SafetensorError, OSError, RuntimeError, TypeError, ValueError, OverflowError, KeyError) as error:
            raise InputError(f"{self.path}: tensor {shown(key)} cannot be read ({_line(error)})") from error

    def read_all(self) -> dict[str, Tensor]:
        """All tensors, as stored."""
        return {key: self.read(key) for key in self.shapes}


@contextmanager
def open_tensors(path: Path, *, framework: str = "pt", device: str = "cpu") -> Iterator[TensorFile]:
    """Open a safetensors file and check its header.

    Raises:
        InputError: no such file, a pickle, empty, cut off, no safetensors file, or a tensor of an impossible shape.
    """
    refuse_pickle(path)
    refuse_undecodable(path)
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > min(LARGEST_HEADER, path.stat().st_size):
            raise SafetensorError(f"its header would take {header} bytes")
        opened = safe_open(path, framework=framework, device=device)
    except (SafetensorError, RuntimeError, OverflowError, ValueError, TypeError, MemoryError) as error:
        raise _broken(path, error) from error
    with opened as file:
        try:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
            shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
            types = {key: str(part.get_dtype()) for key, part in slices.items()}
            metadata = dict(file.metadata() or {})
        except (SafetensorError, OverflowError, ValueError, TypeError) as error:
            raise _broken(path, error) from error
        for key, shape in shapes.items():
            if any(side > LARGEST_SIDE for side in shape):
                raise InputError(f"{path}: tensor {shown(key)} has the impossible shape {shape}; get the file again")
        yield TensorFile(path, metadata, shapes, types, file)


def refuse_pickle(path: Path) -> None:
    """Raises InputError where `path` is a pickle by its ending or no file, MissingError where it does not exist."""
    require_file(path, "give a .safetensors file")
    if path.suffix.lower() in PICKLES:
        raise _is_pickle(path)


def _broken(path: Path, error: BaseException) -> InputError:
    """What to say of a file that safetensors refused, which may be a pickle under another name."""
    if isinstance(error, RuntimeError) and str(error).endswith(f"({errno.ENOENT})"):
        return MissingError(f"{path} cannot be read ({os.strerror(errno.ENOENT)})")  # torch opened it again, by name
    try:
        with path.open("rb") as file:
            start = file.read(4)
        size = path.stat().st_size
    except OSError as problem:
        kind = MissingError if isinstance(problem, FileNotFoundError) else InputError
        return kind(f"{path} cannot be read ({problem.strerror or errno.errorcode.get(problem.errno or 0)})")
    if start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in PICKLE_PROTOCOLS):
        return _is_pickle(path)
    return InputError(f"{path} ({size} bytes) is empty, cut off or no safetensors file: {_line(error)}")


def _is_pickle(path: Path) -> InputError:
    return InputError(f"{path} is a pickle, which can run any program when opened; get the .safetensors file")


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
