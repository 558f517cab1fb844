"""Scanning a folder of pictures by the conventions of kohya, OneTrainer, Mix-of-Show and Hugging Face `imagefolder`."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from spectral_fusion.concept.images import captions
from spectral_fusion.concept.images.picture import ENDINGS, background_colour, is_transparent, read_mask, read_picture
from spectral_fusion.errors import InputError

MASK_SUFFIX = "-masklabel"
PICTURES_FOLDERS = ("images", "image")
KOHYA_FOLDER = re.compile(r"(?P<repeats>[1-9]\d{0,3})_(?P<words>\S.*)")


@dataclass(frozen=True)
class Photo:
    """One usable picture. `width` and `height` are in pixels, after EXIF rotation."""

    path: Path
    width: int
    height: int
    caption: str | None = None
    mask: Path | None = None
    repeats: int = 1


@dataclass(frozen=True)
class ImageFolder:
    """The usable pictures of one subject, in order of their names, and a line for each thing left out or altered."""

    path: Path
    photos: tuple[Photo, ...]
    warnings: tuple[str, ...] = ()
    class_word: str | None = None
    background: str = "white"

    @classmethod
    def scan(cls, path: str | Path, *, background: str = "white") -> "ImageFolder":
        """Read the folder `path`; nothing in it is changed.

        Layouts: pictures with captions (`a.txt`, `a.caption`, `metadata.jsonl`) and masks (`a-masklabel.png`) beside
        them; Mix-of-Show's `image/ caption/ mask/`; kohya's `10_rex dog/` (repeats and class word), itself or inside
        `path`. A file that cannot be used is named in `warnings` and left out.

        Args:
            background: colour that transparency is flattened on, a name or `#rrggbb`.

        Raises:
            InputError: no such folder, no usable picture in it, a caption or metadata file that cannot be read, or a
                mask that does not fit its picture.
        """
        path = Path(path)
        background_colour(background)
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise InputError(f"{path} {what}; give a folder of pictures")
        parts = [_scan_one(folder, background) for folder in _picture_folders(path)]
        photos = tuple(photo for part in parts for photo in part.photos)
        notes = [note for part in parts for note in part.warnings]
        if not photos:
            raise InputError(_nothing_usable(path, notes))
        if len(photos) == 1:
            notes.append(f"{photos[0].path} is the only picture: the concept will repeat it; five or more are better")
        return cls(path, photos, tuple(notes), next((p.class_word for p in parts if p.class_word), None), background)

    def size_warnings(self, resolution: int) -> list[str]:
        """A line for each picture smaller than a quarter of `resolution`, in pixels."""
        small = [photo for photo in self.photos if min(photo.width, photo.height) * 4 < resolution]
        return [
            f"{photo.path} is {photo.width}x{photo.height}, under a quarter of {resolution} px: it will look blurred"
            for photo in small
        ]

    def read(self, photo: Photo) -> Image.Image:
        """The pixels of `photo`, upright 8-bit RGB."""
        return read_picture(photo.path, self.background)

    def read_mask(self, photo: Photo) -> Image.Image | None:
        """The mask of `photo` as 8-bit grey of the photo's size, white for the subject; None without a mask."""
        if photo.mask is None:
            return None
        return read_mask(photo.mask).resize((photo.width, photo.height), Image.Resampling.BILINEAR)


def _picture_folders(path: Path) -> list[Path]:
    """The folders whose files are the pictures of `path`: kohya's numbered ones, `images/`, or `path` itself."""
    if any(_is_picture(file) for file in path.iterdir()):
        return [path]
    numbered = sorted(sub for sub in path.iterdir() if sub.is_dir() and KOHYA_FOLDER.fullmatch(sub.name))
    inner = [path / name for name in PICTURES_FOLDERS if (path / name).is_dir()]
    return numbered or inner[:1] or [path]


def _scan_one(folder: Path, background: str) -> ImageFolder:
    repeats, class_word = _kohya_prefix(folder.name)
    metadata = captions.read_metadata(folder)
    photos, notes, used = [], [], {captions.METADATA}
    for file in sorted(folder.iterdir()):
        if not _is_picture(file) or file.stem.endswith(MASK_SUFFIX):
            continue
        try:
            picture = read_picture(file, background)
        except InputError as error:
            notes.append(f"left out: {error}")
            continue
        if is_transparent(file):
            notes.append(f"{file} is transparent: flattened on {background}")
        photo = Photo(file, *picture.size, repeats=repeats)
        photo = replace(photo, caption=_caption(photo, metadata, notes), mask=_mask(photo))
        used |= {mask.name for mask in [photo.mask] if mask} | {file.stem + ending for ending in captions.ENDINGS}
        photos.append(photo)
    notes += _strangers(folder, used, metadata)
    return ImageFolder(folder, tuple(photos), tuple(notes), class_word, background)


def _kohya_prefix(name: str) -> tuple[int, str | None]:
    """(repeats, class word) of a folder name: `10_rex dog` and `10_dog` give (10, "dog"), other names (1, None)."""
    match = KOHYA_FOLDER.fullmatch(name)
    if match is None:
        return 1, None
    words = match["words"].split(maxsplit=1)
    return int(match["repeats"]), words[-1].strip()


def _siblings(photo: Photo, name: str) -> list[Path]:
    """Where captions or masks of `photo` may lie: beside it, and in the folder `name` beside Mix-of-Show's `image/`."""
    folder = photo.path.parent
    return [folder, folder.parent / name] if folder.name in PICTURES_FOLDERS else [folder]


def _caption(photo: Photo, metadata: dict[str, str], notes: list[str]) -> str | None:
    for folder in _siblings(photo, "caption"):
        file = captions.caption_beside(folder / photo.path.stem)
        if file is not None:
            caption = captions.read_caption(file)
            if caption is None:
                notes.append(f"{file} is empty: a caption is made from the class word")
            return caption
    return metadata.get(photo.path.name) or None


def _mask(photo: Photo) -> Path | None:
    """The mask file of `photo`, checked to be readable and of the photo's shape (another scale is fine)."""
    beside, *sibling = _siblings(photo, "mask")
    candidates = [beside / f"{photo.path.stem}{MASK_SUFFIX}.png"]
    candidates += [folder / (photo.path.stem + ending) for folder in sibling for ending in ENDINGS]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        return None
    width, height = read_mask(file).size
    # Half a pixel of the smaller of the two may be lost to rounding when one was scaled from the other.
    if abs(width * photo.height - height * photo.width) > max(width, height, photo.width, photo.height):
        raise InputError(
            f"{file} is {width}x{height}, its picture {photo.width}x{photo.height}; "
            "give the mask the shape of the picture or remove it"
        )
    return file


def _strangers(folder: Path, used: set[str], metadata: dict[str, str]) -> list[str]:
    """A line for each entry of `folder` that nothing used. Hidden files are nobody's business."""
    notes = []
    names = {file.name for file in folder.iterdir()}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.name in used or (_is_picture(file) and MASK_SUFFIX not in file.stem):
            continue
        kind = "a folder" if file.is_dir() else "no picture, and belongs to none"
        notes.append(f"left out: {file} is {kind}")
    notes += [
        f"{folder / captions.METADATA} names {name}, which is not there" for name in metadata if name not in names
    ]
    return notes


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith(".")


def _nothing_usable(path: Path, notes: list[str]) -> str:
    reasons = [note.removeprefix("left out: ") for note in notes if note.startswith("left out: ")]
    if not reasons:
        return f"{path} is empty; put pictures ({', '.join(ENDINGS)}) in it"
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    subfolders = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    advice = f"give one of its folders, such as {path / subfolders[0]}" if subfolders else f"give {', '.join(ENDINGS)}"
    return f"{path} holds no usable picture ({'; '.join(reasons[:3])}{more}); {advice}"
