"""Pictures that carry how they were made, in the text format that AUTOMATIC1111's web UI introduced and others read.

    a photo of a <rex> dog
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 965400086, Size: 512x512, Model: name, Version: ...

PNG keeps it under the text key `parameters`, JPEG and WebP in EXIF's UserComment.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import ExifTags, Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

from spectral_fusion.atomic import atomic_file
from spectral_fusion.errors import InputError

KEY = "parameters"
NEGATIVE = "Negative prompt: "
SETTING = re.compile(r'\s*(\w[\w /-]*):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
UNICODE = b"UNICODE\0"
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class Parameters:
    """How a picture was made: its prompts, and settings by the names of the format ("Steps", "CFG scale")."""

    prompt: str
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        negative = [NEGATIVE + self.negative_prompt] if self.negative_prompt else []
        settings = ", ".join(f"{name}: {_quote(value)}" for name, value in self.settings.items())
        return "\n".join([self.prompt, *negative, settings])

    @classmethod
    def parse(cls, text: str) -> "Parameters":
        """The inverse of `str`; also of what other tools write. Text without a line of settings is all prompt."""
        lines = text.strip("\n").split("\n")
        settings = {}
        if lines[-1].lstrip().startswith("Steps: "):
            settings = {name.strip(): _unquote(value) for name, value in SETTING.findall(lines.pop())}
        starts = [number for number, line in enumerate(lines) if line.startswith(NEGATIVE)]
        first = starts[0] if starts else len(lines)
        return cls("\n".join(lines[:first]), "\n".join(lines[first:])[len(NEGATIVE) :], settings)

    @property
    def weights(self) -> dict[str, float]:
        """Weight by name of the concepts that it was made with.

        Raises:
            InputError: the setting "Concepts" is there and cannot be read.
        """
        listed = self.settings.get("Concepts", "")
        try:
            pairs = (item.rpartition(":") for item in listed.split(",") if item.strip())
            return {name.strip(): float(weight) for name, _, weight in pairs}
        except ValueError as error:
            raise InputError(f"the picture's concepts {listed!r} cannot be read; choose them by hand") from error


def format_weights(weights: Mapping[str, float]) -> str:
    """Concepts and weights as pictures record them, `Parameters.weights` is the inverse: `rex: 1, tom: 0.8`."""
    return ", ".join(f"{name}: {weight:g}" for name, weight in weights.items())


def _quote(value: str) -> str:
    """As JSON where the plain text would be read otherwise."""
    plain = value == value.strip() and not value.startswith('"') and not re.search(r"[,:\n]", value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _unquote(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value


def save_picture(image: Image.Image, path: str | Path, parameters: Parameters | str) -> Path:
    """Write a picture with its parameters, whole or not at all, as PNG, JPEG or WebP by the ending.

    Raises:
        InputError: another ending.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path} has the ending {path.suffix!r}; save pictures as .png, .jpg or .webp")
    text = str(parameters)
    with atomic_file(path) as part:
        if kind == "PNG":
            info = PngImagePlugin.PngInfo()
            info.add_text(KEY, text)
            image.save(part, kind, pnginfo=info)
        else:
            exif = Image.Exif()
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = UNICODE + text.encode("utf-16-be")
            image.convert("RGB").save(part, kind, quality=95, exif=exif)
    return path


def read_parameters(path: str | Path) -> Parameters:
    """How a picture was made, from the picture itself.

    Raises:
        InputError: not a readable picture, or one that does not say.
    """
    try:
        with Image.open(path) as image:
            comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
            text = image.info.get(KEY) or _decode_comment(comment)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a readable picture ({error}); give a PNG, JPEG or WebP") from error
    if not text:
        raise InputError(f"{path} does not say how it was made; give a picture with generation parameters")
    return Parameters.parse(str(text))


def _decode_comment(comment: bytes | str | None) -> str:
    """EXIF names the character code in eight bytes, but not its byte order, on which tools differ."""
    if not isinstance(comment, bytes):
        return comment or ""
    code, text = comment[:8], comment[8:]
    if code != UNICODE:
        return text.decode("utf-8", errors="replace").rstrip("\0")
    big = text[::2].count(0) >= text[1::2].count(0)
    return text.decode("utf-16-be" if big else "utf-16-le", errors="replace")


def contact_sheet(
    rows: list[list[Image.Image]], row_labels: list[str] | None = None, column_labels: list[str] | None = None
) -> Image.Image:
    """Pictures of one size as a table with a label before each row and above each column."""
    width, height = rows[0][0].size
    gap, line = 4, 18
    left = line * 4 if row_labels else gap
    top = line + gap if column_labels else gap
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (left + columns * (width + gap), top + len(rows) * (height + gap)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, label in enumerate(column_labels or []):
        draw.text((left + number * (width + gap), gap), label, fill="black", font=font)
    for number, row in enumerate(rows):
        y = top + number * (height + gap)
        if row_labels:
            draw.text((gap, y + height // 2 - line // 2), row_labels[number], fill="black", font=font)
        for column, image in enumerate(row):
            sheet.paste(image, (left + column * (width + gap), y))
    return sheet
