"""Text files: their encoding, their size, their form."""

import codecs
import errno
import os
import re
import stat
from pathlib import Path

from spectral_fusion.errors import InputError, MissingError
from spectral_fusion.names import normal

LARGEST = 64 * 1024  # bytes of a caption or a settings file
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def require_file(path: Path, advice: str) -> None:
    """Raises InputError where `path` is no file, MissingError where it does not exist."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # asked once: a file may come and go
    except (OSError, ValueError) as error:  # ValueError: no path at all
        if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        raise MissingError(f"{path} does not exist; {advice}") from None
    if not regular:
        raise InputError(f"{path} is no file; {advice}")


def read_text(path: Path, *, largest: int = LARGEST) -> str:
    """The text of `path` in NFC with plain line ends: UTF-8, or UTF-16 and UTF-32 with a byte order mark.

    Raises:
        InputError: no such file, not readable, larger than `largest` bytes, in another encoding, or no text.
    """
    return decode_text(read_bytes(path, largest=largest), str(path))


def read_bytes(path: Path, *, largest: int) -> bytes:
    """All of a file.

    Raises:
        InputError: not a file, not readable, or larger than `largest` bytes.
    """
    try:
        require_file(path, "give a file")  # a pipe or a device would never end
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except FileNotFoundError as error:
        raise MissingError(f"{path} cannot be read ({error.strerror}); give a file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    if len(data) > largest:
        raise InputError(f"{path} is larger than {largest // 1024} KiB, which no file of its kind needs; shorten it")
    return data


def decode_text(data: bytes, source: str) -> str:
    """The text that the bytes hold, as `read_text`; `source` names them in errors. Raises InputError."""
    mark, encoding = next(((mark, name) for mark, name in MARKS.items() if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not {_guess(data) or encoding.upper()} {_place(error)}") from None
    if control := CONTROL.search(text):
        guess = _guess(data)
        what = f"is {guess}" if guess else f"holds the control character {control.group()!r}: it is no text"
        raise InputError(f"{source} {what}; save it as UTF-8")
    return normal(text.replace("\r\n", "\n").replace("\r", "\n"))


def _place(error: UnicodeDecodeError) -> str:
    return f"(byte {error.start}); save it as UTF-8"


def _guess(data: bytes) -> str | None:
    """UTF-16 without its mark shows by every other byte being zero, or one and the same small number."""
    pairs = data[: len(data) // 2 * 2]
    for name, high in (("UTF-16-LE", pairs[1::2]), ("UTF-16-BE", pairs[::2])):
        if high and sum(byte < 0x20 for byte in high) > 0.8 * len(high):
            return f"{name} without a byte order mark"
    return None
