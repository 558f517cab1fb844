"""Concepts and bands as HTML; names and words are what visitors wrote."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from spectral_fusion_app.shelf import Bands, ShelfCard

THUMBNAIL = 192  # px
COLOURS = ("#2a9d8f", "#e76f51", "#5c7cfa", "#e9b44c", "#b5179e", "#52796f", "#ef476f", "#3a86ff")
MAP_WIDTH, MAP_HEIGHT = 1000, 34
CHOOSE = """
element.addEventListener("click", event => {
  const card = event.target.closest("[data-name]");
  if (card) trigger("select", {name: card.dataset.name});
});
"""


def cards_html(cards: Sequence[ShelfCard], chosen: str) -> str:
    """One button a concept: preview, name, trigger, class, base, band and size."""
    if not cards:
        return '<p class="hint">No concepts yet. Train one, or import a file.</p>'
    return f'<div class="shelf">{"".join(card_html(card, card.info.name == chosen) for card in cards)}</div>'


def card_html(card: ShelfCard, chosen: bool) -> str:
    """One concept; its name is in `data-name`."""
    info = card.info
    picture = thumbnail(card.preview, card.preview.stat().st_mtime_ns) if card.preview.is_file() else ""
    image = f'<img alt="" src="{picture}">' if picture else '<span class="blank"></span>'
    name = escape(info.name, quote=True)
    lines = [f"{info.trigger} {info.class_word}", f"{info.base_name or info.base} · {size_words(card.size)}"]
    lines.append(f"band {info.band.label} · rank {info.band.rank}")
    texts = "".join(f"<span>{escape(line)}</span>" for line in lines)
    return (
        f'<button type="button" class="concept" data-name="{name}" aria-pressed="{str(chosen).lower()}">'
        f"{image}<b>{name}</b>{texts}</button>"
    )


def chip_html(card: ShelfCard) -> str:
    """One concept as a small button; its name is in `data-name`."""
    picture = thumbnail(card.preview, card.preview.stat().st_mtime_ns) if card.preview.is_file() else ""
    image = f'<img alt="" src="{picture}">' if picture else ""
    name = escape(card.info.name, quote=True)
    return f'<button type="button" id="chip-{name}" data-name="{name}">{image}{name}</button>'


def details_html(card: ShelfCard) -> str:
    """All that a file says of itself, as a list."""
    info, training = card.info, card.info.training
    rows = {
        "trigger": info.trigger,
        "class": info.class_word,
        "base": f"{info.base_name} {info.base}".strip(),
        "directions": f"{info.span.start} to {info.span.stop - 1} of {info.directions} (band {info.band.label})",
        "mode": info.mode,
        "steps": str(training.get("steps", "")),
        "pictures": str(training.get("pictures", "")),
        "size": size_words(card.size),
    }
    items = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in rows.items() if value)
    return f'<h3>{escape(info.name)}</h3><dl class="facts">{items}</dl>'


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
        f'<figure class="bands"><figcaption><b>{escape(bands.base)}</b> · {bands.directions} singular directions · '
        f"{room_words(bands.free, bands.rank)}</figcaption>"
        f'<svg viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" role="img" preserveAspectRatio="none" '
        f'aria-label="bands of {escape(bands.base, quote=True)}">{frame}{"".join(bars)}</svg>'
        f"<ul>{''.join(legend)}</ul></figure>"
    )


def room_words(free: int, rank: int) -> str:
    """How many more concepts fit."""
    if not free:
        return f"no room for another concept of rank {rank}"
    return f"room for {free} more concept{'s' if free != 1 else ''} of rank {rank}"


def size_words(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


@lru_cache(maxsize=256)
def thumbnail(path: Path, changed: int) -> str:
    """A small copy of a picture in the page itself; empty where it cannot be read. `changed` tells new ones apart."""
    try:
        with Image.open(path) as image:
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            data = io.BytesIO()
            image.convert("RGB").save(data, "WEBP", quality=85)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
