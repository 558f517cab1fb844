"""How far a request is, as HTML: a bar, a line of text, and the picture as far as it can be seen."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from spectral_fusion_app.studio import Progress

if TYPE_CHECKING:
    from PIL import Image


def stage_html(news: int | Progress, seconds: float) -> str:
    """HTML for what `Line.follow` tells; it holds nothing that a visitor wrote.

    Args:
        news: the number of requests before this one, or its progress.
        seconds: since it began, for the time that is left.
    """
    if isinstance(news, int):
        line = "starting" if news == 0 else f"waiting · {news} before this"
        return f'<div class="stage"><progress></progress><p role="status">{line}</p></div>'
    left = seconds / news.fraction - seconds if news.fraction else 0.0
    parts = [f"step {news.step} of {news.steps}", f"{left:.0f} s left"]
    if news.pictures > 1:
        parts.insert(0, f"picture {news.picture} of {news.pictures}")
    picture = f'<img alt="preview" src="{_data_url(news.preview)}">' if news.preview else ""
    bar = f'<progress max="1" value="{news.fraction:.3f}"></progress>'
    return f'<div class="stage">{bar}<p role="status">{" · ".join(parts)}</p>{picture}</div>'


def _data_url(image: Image.Image) -> str:
    """In the page itself: previews are many, and files of them would pile up."""
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
