"""Long work on the standard error stream: a line that changes on a terminal, plain lines where there is none.

Logs and pipes get a line for each stage at once, and one now and then while a stage counts.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, ProgressColumn

EVERY = 10.0  # seconds between two plain lines of one stage
NUMBER = re.compile(r"[\d.]+")
OF = re.compile(r"(\d+) of (\d+)")


class PlainLines:
    """Says what is done now. Texts that differ in numbers alone are one stage: its first, its last and some between."""

    def __init__(self, console: Console, every: float = EVERY) -> None:
        self.console, self.every = console, every
        self.text, self.stage, self.said = "", "", 0.0

    def __call__(self, text: str) -> None:
        stage, now, steps = NUMBER.sub("", text), time.monotonic(), OF.search(text)
        last = steps is not None and steps[1] == steps[2]
        if text == self.text or (stage == self.stage and not last and now - self.said < self.every):
            return
        self.text, self.stage, self.said = text, stage, now
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def heard(name: str, level: int, tell: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Within the `with` block, what a part of the package logs, from this level on, is told.

    name: of the logger: `spectral_fusion.training`.
    """

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record)

    logger, ear = logging.getLogger(name), Ear(level)
    before = logger.level
    logger.addHandler(ear)
    logger.setLevel(min(level, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(ear)


@contextmanager
def status(first: str) -> Iterator[Callable[[str], None]]:
    """What to call with each stage: `training rex: step 3 of 9`."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(first) as shown:
            yield shown.update
        return
    lines = PlainLines(console)
    lines(first)
    yield lines


class Stages:
    """What is done while there is nothing to count: a line that changes on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console, self.lines = console, PlainLines(console)
        self.live = console.status("")

    def __call__(self, text: str, *, live: bool) -> None:
        """live: whether the line may change; below a bar it cannot."""
        if not (live and self.console.is_terminal):
            self.lines(text)
            return
        self.live.update(escape(text))
        self.live.start()

    def stop(self) -> None:
        """Take the line away; calling it again does nothing."""
        self.live.stop()


class StepBar:
    """Steps of one task: a bar on a terminal, plain lines where there is none."""

    def __init__(self, console: Console, name: str, *columns: ProgressColumn) -> None:
        self.name, self.bar = name, Progress(*columns, console=console)
        self.lines = None if console.is_terminal else PlainLines(console)
        self.task = self.bar.add_task(name, total=None, said="")

    def start(self) -> None:
        """Show the bar; calling it again does nothing."""
        if self.lines is None:
            self.bar.start()

    def stop(self) -> None:
        """Leave the bar as it is, and go on below it."""
        if self.bar.live.is_started:
            self.bar.stop()

    def update(self, done: float, total: int, line: str, said: str = "") -> None:
        """How many are done. `line`: the same in words; `said`: what is to be said beside the bar."""
        if self.lines is None:
            self.bar.update(self.task, completed=done, total=total, said=said)
        else:
            self.lines(f"{self.name}: {line}{f', {said}' if said else ''}")
