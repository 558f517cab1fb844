"""The report of the language study: tables with intervals, loss curves, and what they say of the claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from language.methods import METHODS
from language.models import BASES
from language.timing import middle
from study.statistics import Estimate, estimate_difference, estimate_mean

Line = Mapping[str, Any]
DRAWN = (
    *("full", "lora", "dora", "pissa", "oft", "hra", "adalora", "additive-top", "additive-middle", "additive-bottom"),
    "rotational-top",
)


@dataclass(frozen=True)
class Row:
    """What the test runs of one method on one base come to, by seed; `searched` is its best score in the search."""

    method: str
    numbers: int
    size: int
    rate: float
    searched: float
    tried: int
    accuracy: dict[int, float]
    kept: dict[int, float]
    losses: dict[int, list[float]]
    step: float
    diverged: int

    @property
    def title(self) -> str:
        return METHODS[self.method].title


def best_rate(lines: Sequence[Line], base: str, method: str) -> tuple[float, float, int] | None:
    """The rate with the best accuracy in the search, the lower last loss where they are equal; its score; how many."""
    found = [line for line in lines if (line["base"], line["method"], line["purpose"]) == (base, method, "search")]
    if not found:
        return None
    best = max(found, key=score)
    return best["rate"], best["accuracy"], len(found)


def score(line: Line) -> tuple[float, float]:
    """What the search compares: accuracy, and the lower last loss where it is equal."""
    return line["accuracy"], -(line["losses"] or [float("inf")])[-1]


def rows_of(lines: Sequence[Line], base: str) -> list[Row]:
    """The methods that were tested on a base at the rate that the search chose, in the order of the table."""
    rows = []
    for method in METHODS:
        chosen = best_rate(lines, base, method)
        if chosen is None:
            continue
        wanted = (base, method, "test", chosen[0])
        own = [line for line in lines if (line["base"], line["method"], line["purpose"], line["rate"]) == wanted]
        if own:
            rows.append(
                Row(
                    method,
                    own[0]["numbers"],
                    own[0]["size"],
                    *chosen,
                    {line["seed"]: line["accuracy"] for line in own},
                    {line["seed"]: line["kept"] for line in own},
                    {line["seed"]: line["losses"] for line in own if line["losses"]},
                    median(line["step"] for line in own),
                    sum(line["diverged"] for line in own),
                )
            )
    return rows


def table(rows: Sequence[Row], timed: Mapping[str, Sequence[float]]) -> list[str]:
    """timed: ratios to LoRA's step, measured in turn; without them, the steps of the runs are compared."""
    lora = next((row.step for row in rows if row.method == "lora"), None)
    lines = [
        "| method | trained parameters | size | rate | accuracy | on the first task | last loss | step / LoRA |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        last = estimate_mean([losses[-1] for losses in row.losses.values()]) if row.losses else "diverged"
        cells: list[object] = [row.title, f"{row.numbers:,}", row.size or "", f"{row.rate:g}"]
        cells += [estimate_mean([*row.accuracy.values()]), estimate_mean([*row.kept.values()]), last]
        in_turn = timed.get(row.method)
        cells.append(middle(in_turn) if in_turn else f"{row.step / lora:.2f} in the runs" if lora else "")
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def verdict(rows: Sequence[Row]) -> str:
    """What the claim of the study comes to on a base: the additive adapter against the others of equal size."""
    additive = [row for row in rows if row.method.startswith("additive")]
    others = [row for row in rows if not METHODS[row.method].ours and row.method != "full"]
    if not additive or not others:
        return "The claim cannot be judged yet: there is no additive adapter, or nothing to compare it with."
    own = max(additive, key=lambda row: row.searched)  # chosen on other questions than it is judged on
    best = max(others, key=lambda row: fmean(row.accuracy.values()))
    places = f" (of {len(additive)} bands the best in the search)" if len(additive) > 1 else ""
    found = f"{own.title}{places} against {best.title}, the best other: {compared(own, best)}."
    if (lora := next((row for row in others if row.method == "lora"), best)) is not best:
        found += f" Against LoRA: {compared(own, lora)}."
    return found


def compared(own: Row, other: Row) -> str:
    """The difference of two rows in words, with its interval."""
    found = estimate_difference(own.accuracy, other.accuracy)
    return f"{found} of accuracy, paired by seed: {said(found)}"


def nearest_to_full(rows: Sequence[Row]) -> str | None:
    """Whose training loss ends nearest to full fine-tuning's, which is what Figure 1 of the paper is about."""
    last = {row.method: fmean(losses[-1] for losses in row.losses.values()) for row in rows if row.losses}
    if "full" not in last or len(last) < 3:
        return None
    full = last.pop("full")
    order = sorted(last, key=lambda method: abs(last[method] - full))
    told = [f"{METHODS[method].title} {last[method]:.3f}" for method in order[:3]]
    place = next((n for n, method in enumerate(order, 1) if method.startswith("additive")), None)
    own = "" if place is None else f" The first additive adapter is number {place} of {len(order)}."
    return f"Last losses nearest to full fine-tuning's ({full:.3f}): {', '.join(told)}.{own}"


def lowest_in_search(rows: Sequence[Row], lines: Sequence[Line], base: str) -> str:
    """Whether another rate would have changed the order: the lowest last loss of each method over all its rates."""
    searched = [line for line in lines if (line["base"], line["purpose"]) == (base, "search") and line["losses"]]
    found = {
        row.title: min((line["losses"][-1], line["rate"]) for line in searched if line["method"] == row.method)
        for row in rows
        if any(line["method"] == row.method for line in searched)
    }
    told = [f"{title} {loss:.3f} (at {rate:g})" for title, (loss, rate) in sorted(found.items(), key=lambda x: x[1])]
    return f"Lowest last loss in the search, whatever the accuracy: {', '.join(told)}."


def at_the_end(rows: Sequence[Row], rates: Sequence[float]) -> str | None:
    """Methods whose best rate is the first or the last of the grid: a rate beyond might be better."""
    found = [row.title for row in rows if row.rate in (min(rates), max(rates))]
    return f"The best rate is at an end of the grid for {', '.join(found)}." if found else None


def said(difference: Estimate) -> str:
    """In words, at 95 % confidence."""
    if difference.low > 0:
        return "better, outside chance"
    if difference.high < 0:
        return "worse, outside chance"
    return "within chance"


def report_text(
    lines: Sequence[Line],
    first: Mapping[str, Mapping[str, float]],
    machine: str,
    timed: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    follows: str = "",
) -> str:
    """The report, Markdown.

    first: of each base its accuracies before any adaptation, by task.
    timed: of each base the ratios to LoRA's step, by method.
    follows: what somebody made of the tables.
    """
    parts = ["# Language models adapted to a shifted task", "![training loss](language-study.png)", REMARKS]
    parts += ["## What follows", follows.strip()] if follows else []
    for name, base in BASES.items():
        if rows := rows_of(lines, name):
            parts.append(f"## {name}: from {base.learned.name} to {base.shifted.name}")
            parts += _section(rows, name, lines, first[name], (timed or {}).get(name, {}))
    parts.append(f"{machine}.")
    return "\n\n".join(parts) + "\n"


def _section(
    rows: Sequence[Row],
    base: str,
    lines: Sequence[Line],
    first: Mapping[str, float],
    timed: Mapping[str, Sequence[float]],
) -> list[str]:
    """The paragraphs of one base."""
    own = [line for line in lines if line["base"] == base]
    steps, rates = own[0]["steps"], {line["rate"] for line in own}
    seeds, tried = (sorted({*counts}) for counts in ((len(row.accuracy) for row in rows), (row.tried for row in rows)))
    before = ", ".join(f"{task} {value:.3f}" for task, value in first.items())
    parts: list[str | None] = [
        f"Before: {before}. {len(own)} runs of {steps} steps; seeds a method: {', '.join(map(str, seeds))}; rates "
        f"tried: {', '.join(map(str, tried))}.",
        "\n".join(table(rows, timed)),
        verdict(rows),
    ]
    missing = [method.title for method in METHODS.values() if method.name not in {row.method for row in rows}]
    lost = [row.title for row in rows if row.diverged]
    parts += [
        nearest_to_full(rows),
        lowest_in_search(rows, lines, base),
        at_the_end(rows, [*rates]),
        f"Runs that diverged count as 0: some of {', '.join(lost)}." if lost else None,
        f"Not run on this base: {', '.join(missing)}." if missing else None,
    ]
    return [part for part in parts if part]


REMARKS = """Two small models, trained from scratch on one task by `benchmarks/language_study.py`, are adapted to
another that shares its words. Accuracy is the share of test questions whose answer is right in every token, the
mean over seeds with Student's interval at 95 %. All methods but full fine-tuning train nearly as many
parameters as a LoRA of the study's rank: "size" is r, the side of a block or the number of frequencies that
comes nearest. Each method's rate is climbed on one grid, from the same place and by the same rule, until both
neighbours of the best are worse, by questions that are in neither part; so methods differ a little in how many
rates they tried. Steps, batches and examples of a base are the same for all its methods. Losses are of the answers
alone, the means of the last twenty-fifth of the training. "step / LoRA" is the processor time of a step over that of
LoRA's in the same round, all methods taking turns on models with random weights, where it is as long: the median, and
the interval that holds it at 95 %."""


def draw_losses(lines: Sequence[Line]) -> Figure:
    """Training loss against steps: means over seeds, a panel a base. Figure 1's shape."""
    drawn = {name: rows for name in BASES if (rows := [row for row in rows_of(lines, name) if row.losses])}
    figure = Figure(figsize=(6 * len(drawn), 4.5), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
        steps = next(line["steps"] for line in lines if line["base"] == name)
        for row in rows:
            if row.method in DRAWN:
                curve = [fmean(values) for values in zip(*row.losses.values(), strict=False)]
                xs = [(i + 0.5) * steps / len(curve) for i in range(len(curve))]
                axes.plot(xs, curve, label=row.title, **_style(row.method))
        axes.set(yscale="log", title=f"{name}: {BASES[name].shifted.name}", xlabel="steps", ylabel="training loss")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _style(method: str) -> dict[str, Any]:
    """The same in every panel: full fine-tuning black, ours solid and wide, the others dashed."""
    if method == "full":
        return {"color": "black", "linewidth": 1.5}
    ours = METHODS[method].ours
    return {
        "color": f"C{DRAWN.index(method) - 1}",
        "linestyle": "-" if ours else "--",
        "linewidth": 2 if ours else 1.3,
    }
