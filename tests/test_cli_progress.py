"""Long work says how far it is, on a terminal and in a log."""

import io
import logging

import pytest
from rich.console import Console

from spectral_fusion.cli.progress import PlainLines, Stages, StepBar, heard, status


def console() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=40), file


def test_without_a_terminal_each_stage_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with status("loading the base") as tell:
        for step in range(1, 10):
            tell(f"training rex: step {step} of 9")
        tell("spectral sum: each concept alone")
        tell("spectral sum: all concepts")
    assert capsys.readouterr().err.splitlines() == [
        "loading the base",
        "training rex: step 1 of 9",
        "training rex: step 9 of 9",
        "spectral sum: each concept alone",
        "spectral sum: all concepts",
    ]


def test_a_long_stage_is_told_again_now_and_then() -> None:
    where, file = console()
    lines = PlainLines(where, every=0.0)
    for step in range(1, 4):
        lines(f"rex: step {step} of 9")
        lines(f"rex: step {step} of 9")
    assert file.getvalue().splitlines() == [f"rex: step {step} of 9" for step in range(1, 4)]


def test_no_line_is_broken() -> None:
    where, file = console()
    PlainLines(where)("a" * 30 + "/" + "b" * 60)
    assert file.getvalue().count("\n") == 1


def test_a_bar_on_a_terminal_is_lines_elsewhere() -> None:
    where, file = console()
    bar = StepBar(where, "rex")
    bar.start()
    bar.update(1, 2, "step 1 of 2", "loss 0.5")
    bar.update(2, 2, "step 2 of 2", "loss 0.4")
    bar.stop()
    said = ["rex: step 1 of 2, loss 0.5", "rex: step 2 of 2, loss 0.4"]
    assert file.getvalue().splitlines() == said


def test_a_part_of_the_package_is_heard_for_a_while() -> None:
    told: list[str] = []
    logger = logging.getLogger("spectral_fusion.somewhere")
    before = logging.getLogger("spectral_fusion").level
    with heard("spectral_fusion", logging.INFO, lambda record: told.append(record.getMessage())):
        logger.info("layer %d of %d", 1, 2)
        logger.debug("nothing")
    logger.info("afterwards")
    assert told == ["layer 1 of 2"]
    assert logging.getLogger("spectral_fusion").level == before


def test_a_stage_is_a_line_that_goes_away_on_a_terminal() -> None:
    file = io.StringIO()
    terminal = Console(file=file, width=40, force_terminal=True)
    stages = Stages(terminal)
    stages("rex: loading [base]", live=True)
    stages.stop()
    stages.stop()
    assert "loading [base]" in file.getvalue()
    where, plain = console()
    lines = Stages(where)
    for text in ("layer 1 of 3", "layer 2 of 3", "layer 3 of 3", "drawing"):
        lines(text, live=True)
    lines.stop()
    assert plain.getvalue().splitlines() == ["layer 1 of 3", "layer 3 of 3", "drawing"]
