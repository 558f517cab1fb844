"""Scanning a folder of pictures by the conventions of kohya, OneTrainer, Mix-of-Show and Hugging Face `imagefolder`."""

from dataclasses import dataclass, field, replace
from os.path import exists
from pathlib import Path

from PIL import Image

from spectral_fusion.concept.images.beside import MASK_SUFFIX, Shelf, find_captions, find_mask, shelves, side_file
from spectral_fusion.concept.images.captions import read_caption, tidy
from spectral_fusion.concept.images.layout import PICTURES_FOLDERS, Layout, class_of, find_layout, kohya_prefix
from spectral_fusion.concept.images.picture import (
    ENDINGS,
    background_colour,
    is_picture,
    is_transparent,
    read_mask,
    read_picture,
)
from spectral_fusion.concept.images.table import Table, read_table
from spectral_fusion.errors import InputError, printable

__all__ = ["MASK_SUFFIX", "ImageFolder", "Photo"]

LONGEST_SIDE = 2.0  # times the shorter one: the most that pictures are trained at
NAMED = 50  # lines about files that nothing used


@dataclass(frozen=True)
class Photo:
    """One usable picture. `width` and `height` are in pixels, after EXIF rotation; `look` is the whole at 16 x 16."""

    path: Path
    width: int
    height: int
    caption: str | None = None
    mask: Path | None = None
    repeats: int = 1
    look: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class ImageFolder:
    """The usable pictures of one subject, in order of their names, and a line for each thing left out or altered."""

    path: Path
    photos: tuple[Photo, ...]
    warnings: tuple[str, ...] = ()
    class_word: str | None = None
    background: str = "white"

    @classmethod
    def scan(cls, path: str | Path, *, background: str = "white", class_word: str | None = None) -> "ImageFolder":
        """Read the folder `path`; nothing in it is changed.

        Layouts: pictures with captions (`a.txt`, `a.caption`) and masks (`a-masklabel.png`) beside them; captions in
        `metadata.jsonl` or `metadata.csv`, there or above; Mix-of-Show's `image/ caption/ mask/`; kohya's `10_rex dog/`
        (repeats and class word), itself or inside `path`. What cannot be used is named in `warnings` and left out.

        Args:
            background: colour that transparency is flattened on, a name or `#rrggbb`.
            class_word: what the pictures show, where that is known: numbered folders of other words are then one set.

        Raises:
            InputError: no such folder, no usable picture in it, a caption or metadata file that cannot be read, a
                mask that does not fit its picture, or numbered folders of several subjects.
        """
        path = Path(path)
        background_colour(background)
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise InputError(f"{path} {what}; give a folder of pictures")
        layout = find_layout(path)
        tables = [read_table(folder) for folder in _table_folders(path, layout)]
        parts = [_scan_one(folder, background, tables) for folder in layout.folders]
        photos = tuple(photo for part in parts for photo in part.photos)
        notes = [note for part in parts for note in part.warnings]
        notes += _left_out(layout.left_out, tables) + [note for table in tables for note in _missing(table, photos)]
        if not photos:
            raise InputError(_nothing_usable(path, notes))
        words = _class_word([part for part in parts if part.photos], class_word)
        if len(photos) == 1:
            notes.append(f"{photos[0].path} is the only picture: the concept will repeat it; five or more are better")
        return cls(path, photos, tuple(map(printable, notes)), words, background)

    def size_warnings(self, resolution: int) -> list[str]:
        """A line for each picture smaller than a quarter of `resolution`, in pixels."""
        small = [photo for photo in self.photos if min(photo.width, photo.height) * 4 < resolution]
        return [
            printable(
                f"{photo.path} is {photo.width}x{photo.height}, under a quarter of {resolution} px: "
                "it will look blurred"
            )
            for photo in small
        ]

    def shape_warnings(self, *, aspect_buckets: bool = True) -> list[str]:
        """A line for each picture so long that a training cuts a good part of it away; says how much it keeps.

        Args:
            aspect_buckets: whether pictures are trained at their own shape, as far as that goes, or as squares.
        """
        most = LONGEST_SIDE if aspect_buckets else 1.0
        kept = {photo: most * min(photo.width, photo.height) / max(photo.width, photo.height) for photo in self.photos}
        return [
            printable(
                f"{photo.path} is {photo.width}x{photo.height}: {max(1, round(100 * share))} % of it is seen at a "
                "time; crop it to what shows the subject"
            )
            for photo, share in kept.items()
            if share < 0.95
        ]

    def check_variety(self) -> None:
        """Refuse pictures that cannot teach what a subject looks like.

        Raises:
            InputError: each is of one colour all over, or all of several are the same picture.
        """
        looks = {photo.look for photo in self.photos}
        if all(len({look[place : place + 3] for place in range(0, len(look), 3)}) == 1 for look in looks):
            raise InputError(
                printable(f"the pictures in {self.path} are each of one colour: there is nothing to learn; give photos")
            )
        if len(looks) == 1 < len(self.photos):
            raise InputError(
                printable(
                    f"all {len(self.photos)} pictures in {self.path} are the same; give others, or one of them alone"
                )
            )

    def read(self, photo: Photo) -> Image.Image:
        """The pixels of `photo`, upright 8-bit RGB."""
        return read_picture(photo.path, self.background)

    def read_mask(self, photo: Photo) -> Image.Image | None:
        """The mask of `photo` as 8-bit grey of the photo's size, white for the subject; None without a mask."""
        if photo.mask is None:
            return None
        return read_mask(photo.mask).resize((photo.width, photo.height), Image.Resampling.BILINEAR)


def find_pictures(path: Path) -> list[Path]:
    """The picture files that `ImageFolder.scan` would read, by their names alone; empty for a folder without any."""
    files = [file for folder in find_layout(path).folders for file in sorted(folder.iterdir()) if is_picture(file)]
    stems = {file.stem for file in files}
    return [file for file in files if not side_file(file.stem, stems)]


def _table_folders(path: Path, layout: Layout) -> list[Path]:
    """Where a table of captions may lie: with the pictures, above them as far as `path`, and beside `images/`."""
    folders = [*layout.folders, path]
    if path.name in PICTURES_FOLDERS:
        folders.append(path.parent)
    return list(dict.fromkeys(folders))


def _scan_one(folder: Path, background: str, tables: list[Table]) -> ImageFolder:
    repeats, words = kohya_prefix(folder.name)
    captions, masks = shelves(folder, "caption"), shelves(folder, "mask")
    files = [file for file in sorted(folder.iterdir()) if is_picture(file)]
    stems = {file.stem for file in files}
    photos, notes = [], []
    for file in files:
        if side_file(file.stem, stems):
            continue
        masks[0].used.add(file)
        try:
            picture = read_picture(file, background)
        except InputError as error:
            notes.append(f"left out: {error}")
            continue
        if is_transparent(file):
            notes.append(f"{file} is transparent: flattened on {background}")
        caption = _caption(file, captions, tables, notes)
        look = picture.resize((16, 16), Image.Resampling.BOX).tobytes()
        photos.append(_masked(Photo(file, *picture.size, caption, None, repeats, look), masks))
    notes += _strangers(folder, captions, masks, {table.path for table in tables})
    return ImageFolder(folder, tuple(photos), tuple(notes), words, background)


def _caption(file: Path, places: list[Shelf], tables: list[Table], notes: list[str]) -> str | None:
    if captions := find_captions(file.stem, places):
        beside, *others = captions
        caption = read_caption(beside)
        notes += [f"left out: {other}, since {beside.name} has the caption of {file.name}" for other in others]
        notes += [
            f"left out: what {table.path} says of {file.name}, since {beside.name} has its caption"
            for table in tables
            if table.caption(file) not in (None, caption)
        ]
        if caption is None:
            notes.append(f"{beside} is empty: a caption is made from the class word")
        return caption
    return next((tidy(text) for table in tables if (text := table.caption(file))), None)


def _masked(photo: Photo, places: list[Shelf]) -> Photo:
    """The photo with its mask, checked to be readable and of the photo's shape (another scale is fine)."""
    file = find_mask(photo.path.stem, places)
    if file is None:
        return photo
    width, height = read_mask(file).size
    # Half a pixel of the smaller of the two may be lost to rounding when one was scaled from the other.
    if abs(width * photo.height - height * photo.width) > max(width, height, photo.width, photo.height):
        raise InputError(
            f"{file} is {width}x{height}, its picture {photo.width}x{photo.height}; "
            "give the mask the shape of the picture or remove it"
        )
    return replace(photo, mask=file)


def _class_word(parts: list[ImageFolder], given: str | None) -> str | None:
    """The class word of numbered folders. Raises InputError where they are of several subjects and none is given."""
    words = {part.class_word for part in parts}
    if len(words) > 1 and given is None:
        names = ", ".join(f"{part.path.name!r}" for part in parts)
        raise InputError(
            f"{parts[0].path.parent} has folders of several subjects: {names}; train each by itself, such as "
            f"{parts[0].path}, or say with --class what they are if they are one"
        )
    return class_of(parts[0].class_word)


def _strangers(folder: Path, captions: list[Shelf], masks: list[Shelf], tables: set[Path | None]) -> list[str]:
    """A line for each entry of `folder`, or of the folders beside it, that nothing used; hidden files have none."""
    used = {file for place in (*captions, *masks) for file in place.used} | tables
    notes = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry in used:
            continue
        if is_picture(entry):
            notes.append(f"left out: {entry} is a mask or condition that another tool keeps beside a picture")
        else:
            notes.append(f"left out: {entry} is {'a folder' if entry.is_dir() else 'no picture, and belongs to none'}")
    notes += [
        f"left out: {file} belongs to no picture" for place in (*captions[1:], *masks[1:]) for file in place.unused()
    ]
    return _shortened(notes)


def _left_out(entries: tuple[tuple[Path, str], ...], tables: list[Table]) -> list[str]:
    used = {table.path for table in tables}
    return _shortened([f"left out: {entry}, since {reason}" for entry, reason in entries if entry not in used])


def _missing(table: Table, photos: tuple[Photo, ...]) -> list[str]:
    """A line for each picture that a table names and that is not there, or for a table that names none of them."""
    keys = {table.key(photo.path) for photo in photos}
    gone = [name for name in table.rows if name not in keys and table.path and not exists(table.path.parent / name)]
    notes = [f"{table.path} names {name[:200]}, which is not there" for name in gone]
    if table.path and not keys & table.rows.keys():
        notes.insert(0, f"{table.path} is not used: it names none of the pictures")
    return _shortened(notes)


def _shortened(notes: list[str]) -> list[str]:
    return notes if len(notes) <= NAMED else [*notes[:NAMED], f"left out: {len(notes) - NAMED} more such files"]


def _nothing_usable(path: Path, notes: list[str]) -> str:
    reasons = [note.removeprefix("left out: ") for note in notes if note.startswith("left out: ")]
    if not reasons:
        return f"{path} is empty; put pictures ({', '.join(ENDINGS)}) in it"
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    subfolders = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    advice = f"give one of its folders, such as {path / subfolders[0]}" if subfolders else f"give {', '.join(ENDINGS)}"
    return f"{path} holds no usable picture ({'; '.join(reasons[:3])}{more}); {advice}"
