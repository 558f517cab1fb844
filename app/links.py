"""Events that cross tabs: made once by the page, set by one tab, listened to by another.

A tab that has changed the library returns `links.news()` for `links.library` among its outputs; a tab that shows the
library listens to `links.library.change`. "Open in Generate" returns `links.news(name)` for `links.open_concept`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import gradio as gr


@dataclass(frozen=True)
class Links:
    """Widgets that carry messages. Made inside the page's `gr.Blocks`, before its tabs.

    Attributes:
        library: concepts came, went or changed.
        open_concept: a concept's name to use in Generate.
        base: another base is ready, so what fits it may have changed.
        tabs: the page's tabs; `gr.Tabs(selected="generate")` for it turns to that one.
    """

    library: gr.State = field(default_factory=lambda: gr.State(("", 0)))
    open_concept: gr.State = field(default_factory=lambda: gr.State(("", 0)))
    base: gr.State = field(default_factory=lambda: gr.State(("", 0)))
    tabs: gr.Tabs = field(default_factory=lambda: gr.Tabs(render=False))
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def news(self, value: str = "") -> tuple[str, int]:
        """A message that differs from all before, so that sending the same value twice is two events.

        The listener receives it as (value, number).
        """
        return value, next(self._numbers)
