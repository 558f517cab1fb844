"""How concepts go together, as HTML; names are what visitors wrote."""

from __future__ import annotations

from html import escape

from spectral_fusion_app.lab.fusing import Check
from spectral_fusion_app.library.shelf_html import band_svg


def check_html(check: Check) -> str:
    """A verdict, the capacity left, the overlap of each two, and the bands."""
    bands = check.bands
    if check.disjoint:
        verdict = '<p role="status" class="good">They go together: none changes what another one does.</p>'
    else:
        verdict = (
            '<p role="status" class="bad">Some share a part of the base, and would change one another. '
            "Leave one of them out, or train it again: it then gets a part of its own.</p>"
        )
    return verdict + (overlaps_html(check) if len(check.names) > 1 else "") + band_svg(bands)


def overlaps_html(check: Check) -> str:
    """The overlap of each two concepts; only what is too much stands out."""
    names = [escape(name) for name in check.names]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = []
    for i, row in enumerate(check.overlaps):
        cells = []
        for j, value in enumerate(row):
            if i == j:
                cells.append('<td aria-label="itself">·</td>')
            else:
                much = value > check.tolerance
                cells.append(f'<td class="much">{value:.3f}</td>' if much else '<td class="none">none</td>')
        rows.append(f'<tr><th scope="row">{names[i]}</th>{"".join(cells)}</tr>')
    caption = "<caption>What each two share: 1 would be all</caption>"
    return f'<div class="scroll"><table class="overlaps">{caption}<tr><td></td>{head}</tr>{"".join(rows)}</table></div>'
