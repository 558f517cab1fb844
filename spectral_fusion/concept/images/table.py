"""Captions in one table for many pictures: `metadata.jsonl` or `metadata.csv`, in the Hub's `imagefolder` layout."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from spectral_fusion.errors import InputError, shown
from spectral_fusion.names import normal
from spectral_fusion.reading import parse_json, read_text

METADATA = "metadata.jsonl"
TABLES = (METADATA, "metadata.csv")
COLUMNS = ("text", "caption", "prompt")  # the first that a row has
LARGEST = 16 * 2**20  # bytes of a table
LONGEST = 64 * 1024  # characters of a caption


@dataclass(frozen=True)
class Table:
    """The captions of one folder and those in it: path relative to the folder -> text; None where there is no file."""

    path: Path | None = None
    rows: dict[str, str] = field(default_factory=dict)

    def caption(self, picture: Path) -> str | None:
        """The caption of a picture, if the table names it."""
        return self.rows.get(self.key(picture)) if self.path else None

    def key(self, picture: Path) -> str:
        """How the table names a picture."""
        folder = self.path.parent if self.path else Path()
        return normal(picture.relative_to(folder).as_posix()) if picture.is_relative_to(folder) else ""


def read_table(folder: Path) -> Table:
    """The table in `folder`; an empty one where there is none.

    Raises:
        InputError: it cannot be read, a row lacks picture or caption, a picture has two, or there are two tables.
    """
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(found) > 1:
        raise InputError(f"{folder} has {found[0].name} and {found[1].name}; remove one, only one can be read")
    if not found:
        return Table()
    rows = _csv_rows(found[0]) if found[0].suffix == ".csv" else _json_rows(found[0])
    captions: dict[str, str] = {}
    for where, row in rows:
        name, text = _caption(where, row)
        if captions.setdefault(name, text) != text:
            raise InputError(f"{where} names {shown(name)} again, with another caption; remove one of the two")
    return Table(found[0], captions)


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path, largest=LARGEST).split("\n"), start=1):
        if line.strip():
            row = parse_json(line, f"{path} line {number}")
            yield f"{path} line {number}", row if isinstance(row, dict) else {}


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(read_text(path, largest=LARGEST)))
    try:
        for row in reader:
            if None in row:
                raise InputError(
                    f"{path} line {reader.line_num} has more values than there are columns; put quotes round a text "
                    "with commas"
                )
            yield f"{path} line {reader.line_num}", {str(key).strip(): value for key, value in row.items()}
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num} is not CSV ({error}); mend it") from None


def _caption(where: str, row: dict[str, Any]) -> tuple[str, str]:
    name, text = row.get("file_name"), next((row[key] for key in COLUMNS if isinstance(row.get(key), str)), None)
    if not isinstance(name, str) or text is None:
        raise InputError(
            f'{where} needs two strings: {{"file_name": "a.jpg", "text": "a photo"}}; the text may be called '
            f"{' or '.join(COLUMNS[1:])} too, found: {shown(', '.join(map(str, row)))}"
        )
    if len(text) > LONGEST:
        raise InputError(f"{where} has a caption of {len(text)} characters; at most {LONGEST} are read")
    parts = [part for part in PurePosixPath(name.strip().replace("\\", "/")).parts if part != "."]
    return normal("/".join(parts)), " ".join(text.split())
