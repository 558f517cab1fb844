"""JSON and TOML: their nesting, their numbers, their strings."""

import json
import math
import sys
from pathlib import Path
from typing import Any

from spectral_fusion.errors import InputError, shown
from spectral_fusion.reading.text import LARGEST, read_text

DEEPEST = 32
LONGEST_NUMBER = 40  # digits


def read_json(path: Path, *, largest: int = LARGEST) -> Any:
    """The value that a JSON file holds. Raises InputError: as `read_text` and `parse_json`."""
    return parse_json(read_text(path, largest=largest), str(path))


def parse_json(text: str, source: str, *, lenient: bool = False) -> Any:
    """The value of a JSON text; `source` names it in errors.

    Args:
        lenient: NaN and Infinity, which are no JSON and some programs write, are read as null.

    Raises:
        InputError: it is no JSON, nested deeper than `DEEPEST`, or holds a number that is not finite or has more than
            `LONGEST_NUMBER` digits, or half a surrogate pair, which no file can hold.
    """
    constant = (lambda _: None) if lenient else _number
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=constant)
        _check(value, 0)
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is not JSON ({error.msg} at character {error.pos}); mend it") from None
    except RecursionError:
        raise InputError(f"{source} is nested deeper than {DEEPEST} levels; flatten it") from None
    except (ValueError, OverflowError) as error:
        raise InputError(f"{source} cannot be used ({error}); mend it") from None
    return value


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The table of a TOML text; `source` names it in errors.

    Raises:
        InputError: it is no TOML, or nested deeper than `DEEPEST`.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        values = tomllib.loads(text)
        _check(values, 0, nul=False)
    except RecursionError:
        raise InputError(f"{source} is nested too deeply; {DEEPEST} levels are the most") from None
    except ValueError as error:
        raise InputError(f"{source} is not valid TOML: {error}; mend that line") from None
    return values


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text)} is not finite")
    return value


def _check(value: Any, depth: int, *, nul: bool = True) -> None:
    """nul: whether texts may hold the character NUL, which no path can."""
    if isinstance(value, str):
        if not nul and "\0" in value:
            raise ValueError("it holds the character NUL")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("it holds half a surrogate pair")
    elif isinstance(value, (dict, list)):
        if depth == DEEPEST:
            raise RecursionError
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            _check(item, depth + 1, nul=nul)
