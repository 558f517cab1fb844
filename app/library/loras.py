"""LoRA files of other programs, kept beside the library: each with what is known of it on the base it was read for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spectral_fusion.errors import InputError
from spectral_fusion.names import same
from spectral_fusion_app.records import read_record, write_record

if TYPE_CHECKING:
    from spectral_fusion.concept.community import LoraFile

FOLDER, BIN = ".loras", ".trash"
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LoraInfo:
    """What is known of one.

    Attributes:
        trigger: words that its author names; empty where there are none.
        base: fingerprint of the base that it was read for.
        rank: the largest of a layer.
        layers: of the base, that it changes.
        unmatched: keys of the file that fit no layer.
        size: in bytes.
    """

    name: str
    trigger: str
    base: str
    base_name: str
    rank: int
    layers: int
    unmatched: int
    size: int
    class_word: str = ""


class Loras:
    """The files of one library. They own no band: they act beside the weights, and fuse with nothing."""

    def __init__(self, library: Path) -> None:
        self.folder = library / FOLDER

    def list(self) -> list[LoraInfo]:
        """All, by name. A record that cannot be read is left out."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                info = LoraInfo(**read_record(path) or {})
            except TypeError:
                continue
            if info.name == path.stem and self._file(info.name).is_file():
                found.append(info)
        return found

    def __contains__(self, name: str) -> bool:
        return any(info.name == name for info in self.list())

    def refuse_name(self, name: str) -> None:
        """Raises InputError where one has this name, in any case: concepts and LoRAs share one set of names."""
        if owner := next((info.name for info in self.list() if same(info.name, name)), None):
            raise InputError(f"the library has a LoRA {owner!r} already; give another name, or delete that one")

    def add(
        self, file: Path, shapes: Shapes, base: str, base_name: str, *, name: str = "", trigger: str = ""
    ) -> LoraInfo:
        """Keep a copy of a file. Names of concepts are the caller's to refuse.

        Args:
            shapes: of the weights of the base's layers.
            name, trigger: empty texts keep what the file says.

        Raises:
            InputError: it is no LoRA for this base, or the name cannot be used or is taken.
        """
        from spectral_fusion.atomic import atomic_file
        from spectral_fusion.concept.community import read_lora
        from spectral_fusion.names import check_name

        try:
            lora = read_lora(file, shapes)
        except InputError as error:
            raise InputError(str(error).replace(str(file), file.name)) from error
        name = check_name(name.strip() or lora.name)
        self.refuse_name(name)
        info = LoraInfo(
            name,
            trigger.strip() or spoken(lora),
            base,
            base_name,
            lora.rank,
            len(lora.layers),
            len(lora.unmatched),
            file.stat().st_size,
        )
        with atomic_file(self._file(name)) as part:
            shutil.copyfile(file, part)
        write_record(self._record(name), asdict(info))
        return info

    def get(self, name: str, shapes: Shapes) -> LoraFile:
        """One with its tensors. Raises InputError where it is gone, or fits another base."""
        from spectral_fusion.concept.community import read_lora

        return replace(read_lora(self.find(name), shapes), name=name)

    def find(self, name: str) -> Path:
        """The file of one. Raises InputError where it is gone."""
        if name not in self:
            raise InputError(f"there is no LoRA {name[:100]!r}; import its file in Library")
        return self._file(name)

    def remove(self, name: str) -> None:
        """Move one into the bin; `restore` is the inverse. Raises InputError where there is none."""
        if name not in self:
            raise InputError(f"there is no LoRA {name[:100]!r}")
        (self.folder / BIN).mkdir(exist_ok=True)
        self._move(name, self.folder, self.folder / BIN)

    def restore(self, name: str) -> str:
        """Bring one back. Raises InputError where it is not in the bin, or its name is taken again."""
        if name not in self.removed():
            raise InputError(f"no LoRA {name[:100]!r} in the bin, or there is another of its name again")
        self.refuse_name(name)
        self._move(name, self.folder / BIN, self.folder)
        return name

    def removed(self) -> Iterable[str]:
        """Names that `restore` can bring back."""
        names = sorted(path.stem for path in (self.folder / BIN).glob("*.json"))
        return [name for name in names if name not in self]

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _move(self, name: str, source: Path, target: Path) -> None:
        """The record goes last on its way in and first on its way out: no record without its file."""
        endings = [".safetensors", ".json"] if target == self.folder else [".json", ".safetensors"]
        for ending in endings:
            file, moved = source / f"{name}{ending}", target / f"{name}{ending}"
            if ending == ".json" or file.exists() or not moved.exists():  # a kill came between the two
                file.replace(moved)


def spoken(lora: LoraFile) -> str:
    """The words that its author names; one in brackets only where its vectors came with the file."""
    words = re.sub(r"<[\w-]+>", lambda word: word[0] if word[0] in lora.embeddings else "", lora.trigger)
    return " ".join(words.split())[:200]
