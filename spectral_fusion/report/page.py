"""The report as one HTML file that needs nothing else: pictures are inside it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, PackageLoader
from PIL import Image

from spectral_fusion.atomic import atomic_file
from spectral_fusion.evaluate import SETTINGS, Evaluation
from spectral_fusion.evaluate.result import Drawing
from spectral_fusion.report import tables
from spectral_fusion.report.sheet import draw_sheet

SMALL = 256  # px: pictures up to this size are kept exactly, larger ones with the losses of WebP at this quality
QUALITY = 90


@dataclass(frozen=True)
class Gallery:
    """Pictures under a title."""

    title: str
    note: str
    drawings: list[Drawing]


def write_report(evaluation: Evaluation, folder: str | Path, *, title: str = "Evaluation") -> tuple[Path, Path]:
    """Write `report.html` and `report.json`; returns their paths."""
    page, data = Path(folder) / "report.html", Path(folder) / "report.json"
    with atomic_file(data) as part:
        part.write_text(json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_file(page) as part:
        part.write_text(render(evaluation, title), encoding="utf-8")
    return page, data


def render(evaluation: Evaluation, title: str) -> str:
    """The page as text. Names and prompts are escaped by the template engine."""
    environment = Environment(
        loader=PackageLoader("spectral_fusion.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = data_uri
    return environment.get_template("page.html").render(
        title=title,
        sheet=draw_sheet(evaluation),
        evaluation=evaluation,
        verdicts=tables.verdicts(evaluation),
        comparisons=[tables.one_in_picture(evaluation), tables.all_in_picture(evaluation)],
        by_concept=[tables.by_concept(evaluation, method) for method in evaluation.methods],
        confusions=[heat for method in evaluation.methods for heat in tables.confusions(evaluation, method)],
        interference=tables.interference(evaluation),
        galleries=galleries(evaluation),
        facts={**{key: str(value) for key, value in evaluation.settings.items()}, **evaluation.facts},
    )


def galleries(evaluation: Evaluation) -> list[Gallery]:
    """All pictures by method and setting; what several methods share is shown once."""
    found = [Gallery("base", "the same prompts in plain words", list(evaluation.base_drawings))]
    shown: set[int] = set()
    for method in evaluation.methods:
        for setting, what in SETTINGS.items():
            drawings = [d for d in method.drawings if d.setting == setting and id(d) not in shown]
            shown.update(map(id, drawings))
            if drawings:
                found.append(Gallery(f"{method.name}, {setting}", what, drawings))
    return found


def data_uri(image: Image.Image) -> str:
    """A picture as text that a browser shows."""
    kind, settings = ("png", {}) if max(image.size) <= SMALL else ("webp", {"quality": QUALITY})
    buffer = BytesIO()
    image.save(buffer, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
