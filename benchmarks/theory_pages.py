"""The pages of docs/theory: measures, draws and writes them.

    python benchmarks/theory_pages.py                      # which pages there are
    python benchmarks/theory_pages.py rank-capacity        # measure some, or `all`, and write their pages
    python benchmarks/theory_pages.py --redraw             # every page again from the data that are kept

`parameter-efficiency` is a study of many trainings: `python benchmarks/parameter_efficiency.py` goes on with it.
"""

from __future__ import annotations

import argparse
import sys

from report import machine
from spectral_fusion.atomic import atomic_file
from spectral_fusion.errors import InputError
from theory import alignment, capacity, cost, directions, efficiency_page
from theory.page import FOLDER, Topic, index_text, save_data, write_page

TOPICS = {module.TOPIC.name: module.TOPIC for module in (capacity, alignment, cost, directions, efficiency_page)}


def write_index() -> None:
    """List the pages whose data are there."""
    there = [topic for topic in TOPICS.values() if (FOLDER / f"{topic.name}.json").is_file()]
    with atomic_file(FOLDER / "README.md") as part:
        part.write_text(index_text(there), encoding="utf-8")


def chosen(names: list[str]) -> list[Topic]:
    """Raises InputError where a page is unknown."""
    if names == ["all"]:
        return [topic for topic in TOPICS.values() if topic.measure]
    if unknown := [name for name in names if name not in TOPICS]:
        raise InputError(f"no page is called {unknown[0]!r}; use all, or some of {', '.join(TOPICS)}")
    return [TOPICS[name] for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("pages", nargs="*", help="names, or `all`")
    parser.add_argument("--redraw", action="store_true", help="draw all pages from their data, and measure nothing")
    settings = parser.parse_args()
    try:
        topics = chosen(settings.pages)
        for topic in topics:
            if topic.measure:
                save_data(topic, topic.measure(), machine())
        if settings.redraw:
            topics = [topic for topic in TOPICS.values() if (FOLDER / f"{topic.name}.json").is_file()]
        for topic in topics:
            for path in write_page(topic):
                print(path)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if topics:
        write_index()
    else:
        print("\n".join(f"{topic.name:22} {topic.summary}" for topic in TOPICS.values()))


if __name__ == "__main__":
    main()
