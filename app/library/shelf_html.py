"""What a concept says of itself, and the bands of a base as a drawing; names and words are what visitors wrote."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from spectral_fusion.errors import InputError
from spectral_fusion_app.library.shelf import Bands, ShelfCard

THUMBNAIL = 192  # px
COLOURS = ("#2a9d8f", "#e76f51", "#5c7cfa", "#e9b44c", "#b5179e", "#52796f", "#ef476f", "#3a86ff", "#9c6644", "#8ac926")
MAP_WIDTH, MAP_HEIGHT = 1000, 34


def facts(card: ShelfCard) -> dict[str, str]:
    """All that a file says of itself, by what it is called."""
    info, training = card.info, card.info.training
    rows = {
        "Base": f"{info.base_name} {info.base}".strip(),
        "Band": f"{info.band.label}, rank {info.band.rank}",
        "Directions": f"{info.span.start} to {info.span.stop - 1} of {info.directions}",
        "Mode": info.mode,
        "Steps": str(training.get("steps", "")),
        "Photos": str(training.get("pictures", "")),
        "Size": size_words(card.size),
    }
    return {name: value for name, value in rows.items() if value}


def bands_html(bases: Sequence[Bands]) -> str:
    """A picture for each base: the singular directions from left to right, and who owns them."""
    return "".join(map(band_svg, bases))


def band_svg(bands: Bands) -> str:
    """One base's map; concepts that share directions are drawn over one another."""
    scale = MAP_WIDTH / bands.directions
    bars, legend = [], []
    for number, info in enumerate(bands.members):
        colour, name = COLOURS[number % len(COLOURS)], escape(info.name)
        span = info.band.within(bands.directions)
        x, width = span.start * scale, max(2.0, info.band.rank * scale - 1)
        title = f"<title>{name}: directions {span.start} to {span.stop - 1}</title>"
        bars.append(
            f'<rect x="{x:.1f}" width="{width:.1f}" height="{MAP_HEIGHT}" rx="3" fill="{colour}">{title}</rect>'
        )
        legend.append(f'<li><i style="background:{colour}"></i>{name}</li>')
    frame = f'<rect width="{MAP_WIDTH}" height="{MAP_HEIGHT}" rx="3" fill="currentColor" opacity="0.1"/>'
    return (
        f'<figure class="bands"><figcaption><b>{escape(bands.base)}</b> · {room_words(bands.free)} '
        f'<span class="hint">(rank {bands.rank}, {bands.directions} directions in all)</span></figcaption>'
        f'<svg viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" role="img" preserveAspectRatio="none" '
        f'aria-label="bands of {escape(bands.base, quote=True)}">{frame}{"".join(bars)}</svg>'
        f"<ul>{''.join(legend)}</ul></figure>"
    )


def room_words(free: int) -> str:
    """How many more concepts fit."""
    if not free:
        return "no room for another concept"
    return f"room for {free} more concept{'s' if free != 1 else ''}"


def size_words(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def icon(card: ShelfCard) -> str:
    """A concept's preview in the page itself; empty where it has none."""
    return thumbnail(card.preview, card.preview.stat().st_mtime_ns) if card.preview.is_file() else ""


@lru_cache(maxsize=256)
def thumbnail(path: Path, changed: int) -> str:
    """A small copy of a picture in the page itself; empty where it cannot be read. `changed` tells new ones apart."""
    from spectral_fusion.reading import load_picture

    try:
        image = load_picture(path, smallest=1)
    except (OSError, InputError):
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    image.convert("RGB").save(data, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
