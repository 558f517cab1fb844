"""Dataset files of kohya's scripts (`--dataset_config`): which folders to train on, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spectral_fusion.concept.images.folder import ImageFolder
from spectral_fusion.concept.images.layout import class_of
from spectral_fusion.errors import InputError, printable, shown
from spectral_fusion.reading import parse_json, parse_toml, read_text

ENDINGS = (".toml", ".json")
SETTINGS = {
    "resolution": "resolution",
    "batch_size": "batch_size",
    "enable_bucket": "aspect_buckets",
    "flip_aug": "flip",
    "random_crop": "random_crop",
    "shuffle_caption": "shuffle_captions",
    "keep_tokens": "keep_tags",
    "caption_dropout_rate": "caption_dropout",
}
"""Names there, and the settings of `TrainConfig` that they are."""
OF_SUBSETS = ("image_dir", "class_tokens", "num_repeats", "is_reg", "caption_prefix", "caption_suffix")
# Buckets are made by a rule of our own, captions of any known ending are read, and names need no meaning.
WITHOUT_NEED = (
    *("caption_extension", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale"),
    *("cache_info", "validation_seed"),
)


@dataclass(frozen=True)
class Dataset:
    """What a dataset file asks for: the pictures of one subject, and settings by the names of `TrainConfig`."""

    images: ImageFolder
    settings: dict[str, Any]


@dataclass(frozen=True)
class _Subset:
    """One folder, with the settings of its dataset and of the whole file where it has none of its own."""

    values: Mapping[str, Any]
    place: str

    def get(self, key: str, kind: type, default: Any) -> Any:
        value = self.values.get(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputError(f"{self.place}: {key} is {shown(value)}; give a {kind.__name__}")
        return value


def read_dataset(path: Path, *, background: str = "white", class_word: str | None = None) -> Dataset:
    """The pictures and settings of a dataset file in TOML or JSON.

    What is named there and has no counterpart here is a line in the warnings of the pictures.

    Args:
        background, class_word: as for `ImageFolder.scan`.

    Raises:
        InputError: the file cannot be read, names no folder, a folder in it cannot be used, or its parts contradict one
            another.
    """
    subsets = list(_subsets(_parsed(path), path))
    own = [subset for subset in subsets if not subset.get("is_reg", bool, False)]
    if not own:
        raise InputError(f"{path} names no folder of a subject; give [[datasets.subsets]] with an image_dir")
    parts = [_scanned(subset, path, background) for subset in own]
    words = {class_of(subset.get("class_tokens", str, "").strip()) for subset in own} - {None}
    if len(words) > 1 and class_word is None:
        raise InputError(
            f"{path} has subjects of several classes: {', '.join(sorted(map(str, words)))}; train each alone"
        )
    notes = [note for part in parts for note in part.warnings] + _left_out(own, path)
    photos = tuple(photo for part in parts for photo in part.photos)
    images = ImageFolder(path, photos, tuple(notes), class_word or next(iter(words), None), background)
    return Dataset(images, _settings(own, path) | _class_images(subsets, path))


def _parsed(path: Path) -> dict[str, Any]:
    text = read_text(path)
    values = parse_toml(text, str(path)) if path.suffix.lower() == ".toml" else parse_json(text, str(path))
    if not isinstance(values, dict) or not isinstance(values.get("datasets"), list):
        raise InputError(f"{path} is no dataset file: it has no [[datasets]]; settings of a training go to --config")
    return values


def _subsets(values: dict[str, Any], path: Path) -> Iterator[_Subset]:
    for number, dataset in enumerate(values["datasets"], start=1):
        subsets = dataset.get("subsets", []) if isinstance(dataset, dict) else None
        if not isinstance(subsets, list) or not all(isinstance(subset, dict) for subset in subsets):
            raise InputError(f"{path}: dataset {number} has no [[datasets.subsets]]; give it one for each folder")
        general = values.get("general", {})
        above = {**(general if isinstance(general, dict) else {}), **dataset}
        above.pop("subsets", None)
        for place, subset in enumerate(subsets, start=1):
            yield _Subset({**above, **subset}, f"{path}, dataset {number}, subset {place}")


def _scanned(subset: _Subset, path: Path, background: str) -> ImageFolder:
    folder = ImageFolder.scan(_folder(subset, path), background=background, class_word="")
    repeats = subset.get("num_repeats", int, 1)
    if repeats < 1:
        raise InputError(f"{subset.place}: num_repeats is {repeats}; give 1 or more")
    before, after = subset.get("caption_prefix", str, ""), subset.get("caption_suffix", str, "")

    def caption(text: str | None) -> str | None:
        return text and " ".join(part for part in (before, text, after) if part)

    photos = tuple(replace(photo, repeats=repeats, caption=caption(photo.caption)) for photo in folder.photos)
    return replace(folder, photos=photos)


def _folder(subset: _Subset, path: Path) -> Path:
    """The folder as it is named from here, or from where the file lies."""
    named = subset.get("image_dir", str, "")
    if not named:
        raise InputError(f"{subset.place} has no image_dir; give the folder of its pictures")
    here, there = Path(named).expanduser(), path.parent / named
    return there if not here.is_dir() and there.is_dir() else here


def _settings(own: list[_Subset], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for theirs, ours in SETTINGS.items():
        values = [subset.values[theirs] for subset in own if theirs in subset.values]
        if any(value != values[0] for value in values) or 0 < len(values) < len(own):
            raise InputError(f"{path}: {theirs} is not the same for all folders of the subject; one training has one")
        if values:
            found[ours] = _side(values[0], path) if theirs == "resolution" else values[0]
    return found


def _side(value: Any, path: Path) -> int:
    """The side of a square of as many pixels."""
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise InputError(f"{path}: resolution is {shown(value)}; give 512 or [512, 512]")
    return round((sides[0] * sides[1]) ** 0.5)


def _class_images(subsets: list[_Subset], path: Path) -> dict[str, str]:
    folders = [_folder(subset, path) for subset in subsets if subset.get("is_reg", bool, False)]
    if len(folders) > 1:
        raise InputError(f"{path} has {len(folders)} folders of class pictures (is_reg); put them into one")
    return {"class_images": str(folders[0])} if folders else {}


def _left_out(own: list[_Subset], path: Path) -> list[str]:
    """A line for each setting that would have an effect there and has none here."""
    known = {*SETTINGS, *OF_SUBSETS, *WITHOUT_NEED}
    names = dict.fromkeys(key for subset in own for key, value in subset.values.items() if key not in known and value)
    return [printable(f"{path}: {name} is not known here and has no effect") for name in names]
