"""The index of a large library: what all headers say, in one file, so that a listing opens no concept.

It only remembers. An entry counts while the concept's file has the time, size and number that the entry was made from,
so whatever changed is read anew, a damaged or missing index is made again, and deleting it loses nothing. Its version
is in its name: a newer program keeps another one beside it, and neither spoils the other's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from spectral_fusion.atomic import atomic_file
from spectral_fusion.concept.header import CheckedLayers
from spectral_fusion.concept.holdings import Holdings, Reader, take_stock
from spectral_fusion.concept.metadata import ConceptInfo
from spectral_fusion.concept.notes import NOTES
from spectral_fusion.concept.read import FILE_NAME
from spectral_fusion.errors import InputError
from spectral_fusion.reading.text import read_bytes
from spectral_fusion.spectral import Band

logger = logging.getLogger(__name__)

INDEX = ".index-1.json"
SMALL = 64  # concepts; so many are read as fast as an index, and a small library stays a folder of concepts alone
LARGEST = 2**28  # bytes
LAYERS = ("fingerprints", "kernels")  # the same for many concepts, so kept once
PLAIN = tuple(f.name for f in fields(ConceptInfo) if f.name not in (*LAYERS, "band", "text_parts"))

Stamp = list[int]


def indexed_stock(root: Path) -> Holdings:
    """What the library holds, as `take_stock`; what the index knows of it is not read again."""
    index = Index(root)
    stock = take_stock(root, index)
    index.save()
    return stock


class Index(Reader):
    """Reads concepts from the index where their files are as they were, else from the files, and notes these."""

    def __init__(self, root: Path):
        self.path = root / INDEX
        self.before, self.tables = _load(self.path)
        self.entries: dict[str, dict[str, Any]] = {}
        self.keys = {_table_key(table, table.kernels): number for number, table in enumerate(self.tables)}

    def info(self, folder: Path) -> ConceptInfo:
        """The concept of a folder. Raises InputError or OSError where it must be read and cannot."""
        stamp = _stamp(folder / FILE_NAME)
        entry = self.before.get(folder.name)
        if entry is not None and entry.get("file") == stamp:
            try:
                info = self._from_record(entry["info"])
                self.entries[folder.name] = entry
                return info
            except (KeyError, TypeError, ValueError, IndexError):
                logger.debug("the index has an entry that cannot be used: %s", folder.name)
        info = super().info(folder)
        self.entries[folder.name] = {"file": stamp, "info": self._to_record(info)}
        return info

    def tags(self, folder: Path) -> tuple[str, ...]:
        """The tags beside a concept."""
        try:
            stamp = _stamp(folder / NOTES)
        except OSError:  # gone meanwhile, or a link to itself: notes must not hide a concept
            return ()
        entry = self.entries[folder.name]
        known = entry.get("notes")
        if not (isinstance(known, list) and len(known) == 2 and known[0] == stamp):
            self.entries[folder.name] = entry | {"notes": [stamp, list(super().tags(folder))]}
        return tuple(self.entries[folder.name]["notes"][1])

    def save(self) -> None:
        """Write what is new. A library that cannot be written goes without."""
        if len(self.entries) < SMALL or self.entries == self.before:
            return
        tables = [[table, table.kernels] for table in self.tables]
        body = json.dumps({"tables": tables, "concepts": self.entries}, separators=(",", ":")).encode()
        try:
            with atomic_file(self.path) as part:
                part.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        except OSError as error:
            logger.debug("no index in %s: %s", self.path.parent, error)

    def _to_record(self, info: ConceptInfo) -> dict[str, Any]:
        key = _table_key(info.fingerprints, info.kernels)
        if key not in self.keys:
            self.keys[key] = len(self.tables)
            self.tables.append(CheckedLayers.of(info.name, info.fingerprints, info.kernels))
        band = [info.band.index, info.band.rank, info.band.side]
        own = {"band": band, "text_parts": list(info.text_parts), "layers": self.keys[key]}
        return {name: getattr(info, name) for name in PLAIN} | own

    def _from_record(self, record: dict[str, Any]) -> ConceptInfo:
        layers = self.tables[record["layers"]]
        return ConceptInfo(
            **{name: record[name] for name in PLAIN},
            band=Band(*record["band"]),
            text_parts=tuple(record["text_parts"]),
            fingerprints=layers,
            kernels=layers.kernels,
        )


def _load(path: Path) -> tuple[dict[str, dict[str, Any]], list[CheckedLayers]]:
    """The entries of an index and the layers that they speak of; none where there is no index that can be used."""
    try:
        if not path.is_file():
            return {}, []
        digest, _, body = read_bytes(path, largest=LARGEST).partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError("its content is not what was written")
        record = json.loads(body)
        tables = [
            CheckedLayers.of(
                "of the index", prints, {layer: (rows, columns) for layer, (rows, columns) in sizes.items()}
            )
            for prints, sizes in record["tables"]
        ]
        return dict(record["concepts"]), tables
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.debug("the index %s is made again: %s", path, error)
        return {}, []


def _stamp(path: Path) -> Stamp:
    found = os.stat(path)
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def _table_key(fingerprints: dict[str, str], kernels: dict[str, tuple[int, int]]) -> str:
    return hashlib.sha256(json.dumps([fingerprints, kernels], sort_keys=True).encode()).hexdigest()
