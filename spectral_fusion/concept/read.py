"""Opening a concept file: finding it, reading its header and tensors, and saying what it is where it is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spectral_fusion.atomic import write_safetensors
from spectral_fusion.concept.kinds import kind_of
from spectral_fusion.concept.metadata import OURS, ConceptInfo, from_metadata, to_metadata
from spectral_fusion.errors import InputError
from spectral_fusion.reading import TensorFile, open_tensors
from spectral_fusion.reading.tensors import refuse_pickle

if TYPE_CHECKING:
    from torch import Tensor

FILE_NAME = "concept.safetensors"
EMBEDDINGS = "embeddings"  # what the names of their tensors begin with
LARGEST_HEADER = 16 * 2**20  # bytes of metadata


def read_info(path: str | Path) -> ConceptInfo:
    """The metadata of a concept file, without reading its tensors.

    Raises:
        InputError: the file is missing, broken, or not a concept (the message says what it is).
    """
    with open_concept(find_file(path)) as (info, _):
        return info


@contextmanager
def open_concept(path: Path) -> Iterator[tuple[ConceptInfo, TensorFile]]:
    """A concept file's metadata, and the file itself, whose tensors are unread. Raises InputError, as `read_info`."""
    with open_tensors(path) as file:
        if sum(map(len, file.metadata.values())) > LARGEST_HEADER:
            raise InputError(f"{path} holds more than {LARGEST_HEADER >> 20} MiB of metadata; get the file again")
        if OURS + "format_version" not in file.metadata:
            raise InputError(
                f"{path} is {kind_of(file.shapes, file.metadata)}, not a concept; concepts carry spectral_fusion.* "
                "metadata"
            )
        yield from_metadata(file.metadata, str(path)), file


def rewrite(source: str | Path, target: str | Path, info: ConceptInfo) -> None:
    """Copy a concept file with other metadata, its tensors bit for bit; source and target may be the same file."""
    tensors = read_tensors(find_file(source))
    widths = [rows.shape[1] for key, rows in tensors.items() if key.partition(".")[0] == EMBEDDINGS]
    write_safetensors(Path(target), tensors, to_metadata(info, widths))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, as stored; raises InputError where it is broken."""
    with open_tensors(path) as file:
        return file.read_all()


def find_file(path: str | Path) -> Path:
    """A concept file, or the one in a concept's folder.

    Raises:
        InputError: there is none, or it is a pickle.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise InputError(f"no concept file at {path}; give a .safetensors file or the folder of a concept")
    refuse_pickle(path)
    return path
