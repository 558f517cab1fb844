"""Pictures of one subject on their way into a training: a folder of copies that visitors cannot choose the names of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from spectral_fusion.concept.images.beside import split_side
from spectral_fusion.concept.images.table import METADATA, TABLES, read_table
from spectral_fusion.errors import InputError
from spectral_fusion.names import key, normal
from spectral_fusion.reading.pictures import ENDINGS, HEIF
from spectral_fusion_app.paths import inside
from spectral_fusion_app.settings import Limits

if TYPE_CHECKING:
    from spectral_fusion.concept.images import ImageFolder, Photo

PICTURES = (*ENDINGS, *HEIF)
CAPTIONS = (".txt", ".caption")
THUMBNAIL = 192  # px


@dataclass(frozen=True)
class Card:
    """One picture as the page shows it. `key` is its path inside the folder, `name` what the user calls it."""

    key: str
    name: str
    thumbnail: Image.Image
    caption: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Photos:
    """A folder of copies. `names`: file name there -> the name that the user knows, where they differ."""

    folder: Path
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def upload(cls, folder: Path, files: Sequence[str | Path], limits: Limits) -> Photos:
        """Copy uploaded files into an empty folder, numbered.

        Captions (`a.txt`, or a table of them), masks (`a-masklabel.png`) and side files of other tools stay with their
        picture.

        Raises:
            InputError: nothing was given, or more files, bytes or pixels than allowed.
        """
        paths = [Path(file) for file in files]
        if not paths:
            raise InputError("no pictures yet; drop five or more of one subject, or name a folder")
        check_limits(paths, limits)
        numbers: dict[str, str] = {}
        names: dict[str, str] = {}
        stems = {path.stem for path in paths if is_picture(path)}
        tables = [path for path in paths if path.name.lower() in TABLES]
        for path in paths:
            stem, side = split_side(path.stem, stems) if is_picture(path) else (path.stem, "")
            ending = path.suffix.lower()
            if ending in (*PICTURES, *CAPTIONS):
                name = f"{numbers.setdefault(key(stem), f'{len(names) + 1:03d}')}{side}{ending}"
                if name in names:  # the same name from another folder
                    name = f"{len(names) + 1:03d}{side}{ending}"
            elif path in tables:
                name = path.name.lower()
            else:
                name = f"other-{len(names) + 1:03d}"  # reported by the scan as no picture
            shutil.copyfile(path, folder / name)
            names[name] = path.name
        if tables:
            _rename_rows(folder, names)
        return cls(folder, names)

    @classmethod
    def from_server(cls, folder: Path, path: str, roots: Iterable[Path], limits: Limits) -> Photos:
        """Copy a folder of the server, and the folders in it, into an empty one: captions and masks come along.

        Raises:
            InputError: the folder, or what a symbolic link in it stands for, is not allowed; or it is too much.
        """
        roots = list(roots)
        source = inside(roots, path)
        if not source.is_dir():
            raise InputError(f"there is no folder {source}; give a folder of pictures")
        found = [entry for entry in sorted(source.glob("*")) + sorted(source.glob("*/*")) if is_wanted(entry)]
        if not found:
            raise InputError(f"the folder {source} holds no pictures; give another one")
        files = {entry: inside(roots, entry) for entry in found}
        check_limits(list(files.values()), limits)
        for entry, file in files.items():
            target = folder / entry.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return cls(folder)

    def class_word(self, given: str = "") -> str:
        """What the pictures show: as given, else as the name of their numbered folder says, `10_rex dog`; or empty."""
        from spectral_fusion.concept.images import ImageFolder

        return given or ImageFolder.scan(self.folder).class_word or ""

    def cards(self, resolution: int, class_word: str = "") -> tuple[list[Card], list[str]]:
        """All usable pictures, and what is to be said of the others.

        Args:
            resolution: of the training, in pixels: smaller pictures get a warning.
            class_word: what they show, where the user says so: numbered folders of other words are then one set.

        Raises:
            InputError: none of them can be used.
        """
        from spectral_fusion.concept.images import ImageFolder

        try:
            scanned = ImageFolder.scan(self.folder, class_word=class_word or None)
        except InputError as error:
            raise InputError(self._readable(str(error))) from error
        warnings = [*scanned.warnings, *scanned.size_warnings(resolution), *scanned.shape_warnings()]
        try:
            scanned.check_variety()
        except InputError as error:  # others may be on their way: it is refused when the training is to start
            warnings.append(str(error))
        cards = [self._card(scanned, photo, warnings) for photo in scanned.photos]
        own = {warning for card in scanned.photos for warning in warnings if str(card.path) in warning}
        return cards, [self._readable(warning) for warning in warnings if warning not in own]

    def check(self, class_word: str = "") -> None:
        """Raises InputError where none of the pictures can be used, or where they cannot teach anything."""
        from spectral_fusion.concept.images import ImageFolder

        try:
            ImageFolder.scan(self.folder, class_word=class_word or None).check_variety()
        except InputError as error:
            raise InputError(self._readable(str(error))) from error

    def write_captions(self, captions: Mapping[str, str]) -> None:
        """Set the captions, key -> text; an empty one leaves it to the class word.

        Raises:
            InputError: a key is none of the pictures'.
        """
        keys = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if is_picture(path)}
        for photo, text in captions.items():
            if photo not in keys:
                raise InputError(f"there is no picture {photo[:100]!r} to caption; choose one of those given")
            for ending in CAPTIONS:
                keys[photo].with_suffix(ending).unlink(missing_ok=True)
            if text.strip() or any((self.folder / table).is_file() for table in TABLES):  # an empty one is none
                keys[photo].with_suffix(".txt").write_text(" ".join(text.split()), encoding="utf-8")

    def _card(self, scanned: ImageFolder, photo: Photo, warnings: list[str]) -> Card:
        thumbnail = scanned.read(photo)
        thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
        own = [self._readable(warning) for warning in warnings if str(photo.path) in warning]
        name = self.names.get(photo.path.name, photo.path.name)
        return Card(str(photo.path.relative_to(self.folder)), name, thumbnail, photo.caption or "", tuple(own))

    def _readable(self, text: str) -> str:
        """A message about the copies in the names that the user knows."""
        for name, known in self.names.items():
            text = text.replace(str(self.folder / name), known)
        return text.replace(f"{self.folder}/", "").replace(
            str(self.folder), "the upload" if self.names else "the folder"
        )


def _rename_rows(folder: Path, names: Mapping[str, str]) -> None:
    """Let a table of captions name the copies; what it says of others stays, and is told. Raises InputError."""
    table = read_table(folder)
    copies = {normal(known): name for name, known in names.items()}
    rows = {copies.get(name.rpartition("/")[2], name): text for name, text in table.rows.items()}
    if table.path is not None:
        table.path.unlink()
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows.items()]
    (folder / METADATA).write_text("\n".join(lines), encoding="utf-8")


def check_limits(files: Sequence[Path], limits: Limits) -> None:
    """Raises InputError: more files, bytes in all, or pixels in one than allowed. Reads headers only."""
    pictures = [file for file in files if is_picture(file)]
    if len(pictures) > limits.uploads or len(files) > 3 * limits.uploads:  # a caption and a mask for each
        raise InputError(
            f"{len(files)} files are more than the {limits.uploads} pictures allowed; choose the best ones"
        )
    size = sum(file.stat().st_size for file in files)
    if size > limits.upload_bytes:
        raise InputError(f"{size / 1e6:.0f} MB are more than the {limits.upload_bytes / 1e6:.0f} allowed; scale down")
    from spectral_fusion.reading import read_header

    for file in pictures:
        try:
            header = read_header(file)
        except (OSError, InputError):
            continue  # the scan says what is wrong with it
        width, height = header.width, header.height
        if width * height > limits.pixels:
            most = limits.pixels / 1e6
            raise InputError(f"{file.name} is {width}x{height} px, more than {most:g} million; scale it down")


def is_picture(path: Path) -> bool:
    """By its ending."""
    return path.suffix.lower() in PICTURES and path.is_file()


def is_wanted(path: Path) -> bool:
    """Whether a file of a folder is a picture, or may belong to one."""
    named = path.suffix.lower() in (*PICTURES, *CAPTIONS) or path.name in TABLES
    return named and path.is_file() and not path.name.startswith(".")
