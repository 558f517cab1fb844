"""A page of docs/theory: a figure, the data behind it, and a paragraph that quotes the data."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spectral_fusion.atomic import atomic_file
from spectral_fusion.errors import InputError

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "theory"
COMMAND = "python benchmarks/theory_pages.py"
WIDTH = 118  # characters a line
INDEX = "Each page has a figure, its data beside it, and the command that makes both."

Data = dict[str, Any]


@dataclass(frozen=True)
class Topic:
    """What one page is about.

    name: of its files: NAME.json, NAME.png and NAME.md.
    summary: one sentence for the index.
    measure: makes the data; None where a study of several runs does.
    draw: the figure of the data.
    tell: the text below the figure, Markdown.
    """

    name: str
    title: str
    summary: str
    measure: Callable[[], Data] | None
    draw: Callable[[Data], Figure]
    tell: Callable[[Data], str]

    @property
    def command(self) -> str:
        """What measures it."""
        own = f"python benchmarks/{self.name.replace('-', '_')}.py run"
        return f"{COMMAND} {self.name}" if self.measure else own


def save_data(topic: Topic, data: Data, machine: str, folder: Path = FOLDER) -> None:
    """Keep what was measured, with where and when."""
    text = json.dumps(data | {"machine": machine}, allow_nan=False, separators=(",", ":"))
    with atomic_file(folder / f"{topic.name}.json") as part:
        part.write_text(text.replace('],["', '],\n["').replace("},{", "},\n{") + "\n", encoding="utf-8")


def load_data(topic: Topic, folder: Path = FOLDER) -> Data:
    """What was measured.

    Raises:
        InputError: nothing was yet.
    """
    path = folder / f"{topic.name}.json"
    if not path.is_file():
        raise InputError(f"{path} is not there; measure it first: {topic.command}")
    data: Data = json.loads(path.read_text(encoding="utf-8"))
    return data


def paragraph(text: str) -> str:
    """One paragraph, its lines filled anew: figures of any length leave it even."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def page_text(topic: Topic, data: Data) -> str:
    """The page, from its data alone."""
    picture = f"![{topic.title}]({topic.name}.png)\n\n" if has_figure(data) else ""
    made = paragraph(f"`{topic.command}` measures it, `{COMMAND} --redraw` draws it again from `{topic.name}.json`.")
    return "\n\n".join([f"# {topic.title}", picture + topic.tell(data).strip(), made, f"{data['machine']}."]) + "\n"


def write_page(topic: Topic, folder: Path = FOLDER) -> list[Path]:
    """Write the figure and the page of data that are kept."""
    data = load_data(topic, folder)
    figure, page = folder / f"{topic.name}.png", folder / f"{topic.name}.md"
    with atomic_file(page) as part:
        part.write_text(page_text(topic, data), encoding="utf-8")
    if not has_figure(data):
        return [page]
    with atomic_file(figure) as part:
        topic.draw(data).savefig(part, format="png", dpi=110, metadata={"Software": None})
    return [page, figure]


def has_figure(data: Data) -> bool:
    """Whether there is anything to draw: a study may not have begun."""
    return data.get("runs") != []


def index_text(topics: list[Topic]) -> str:
    """The index of the pages that are there."""
    lines = [f"* [{topic.title}]({topic.name}.md): {topic.summary}" for topic in topics]
    source = 'The claims are those of "Spectral Adapter: Fine-Tuning in Spectral Space" (arXiv 2405.13952).'
    return "\n".join(["# Theory one can see", "", paragraph(f"{source} {INDEX}"), "", *lines, ""])
