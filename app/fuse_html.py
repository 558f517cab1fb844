"""How concepts go together, and how an evaluation goes, as HTML; names are what visitors wrote."""

from __future__ import annotations

from html import escape

from spectral_fusion_app.evaluations import Evaluation
from spectral_fusion_app.fusing import Check
from spectral_fusion_app.processes import ProcessState
from spectral_fusion_app.shelf_html import band_svg, room_words

WORDS = {"stopping": "stopping", "finished": "finished", "stopped": "cancelled", "failed": "failed"}


def check_html(check: Check) -> str:
    """A verdict, the capacity left, the overlap of each two as a heat map, and the bands."""
    bands = check.bands
    verdict = "no two share a direction" if check.disjoint else "some share directions: they would disturb one another"
    kind = "good" if check.disjoint else "error"
    line = f'<p role="status" class="{kind}">{verdict} · {room_words(bands.free, bands.rank)}</p>'
    return line + (heat_html(check) if len(check.names) > 1 else "") + band_svg(bands)


def heat_html(check: Check) -> str:
    """The overlap of each two concepts: 0 is disjoint, 1 the same directions."""
    names = [escape(name) for name in check.names]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = []
    for i, row in enumerate(check.overlaps):
        cells = "".join(f'<td style="--heat:{0.75 * value:.2f}">{value:.3f}</td>' for value in row)
        rows.append(f'<tr><th scope="row">{names[i]}</th>{cells}</tr>')
    caption = "<caption>overlap of the bands, in the layer where it is largest</caption>"
    return f'<div class="scroll"><table class="heat">{caption}<tr><td></td>{head}</tr>{"".join(rows)}</table></div>'


def evaluation_html(evaluation: Evaluation, state: ProcessState) -> str:
    """A line on what is drawn, or how it ended."""
    names = escape(" + ".join(evaluation.names))
    if state.kind == "running":
        return (
            f'<div class="stage"><progress></progress><p role="status">{names} · {escape(evaluation.stage())}</p></div>'
        )
    error = f'<p class="error" role="alert">{escape(state.error)}</p>' if state.error else ""
    return (
        f'<div class="stage"><p role="status" data-kind="{state.kind}">{names} · {WORDS[state.kind]}</p>{error}</div>'
    )


def report_html(report: str) -> str:
    """A report in a frame that may run no scripts and cannot reach the page."""
    return f'<iframe class="report" title="report" sandbox="" srcdoc="{escape(report, quote=True)}"></iframe>'
