"""An evaluation as tables and heat maps of text and numbers, for the page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from spectral_fusion.evaluate import Evaluation, MethodResult
from spectral_fusion.evaluate.result import Setting, spread

IDENTITY_TOLERANCE = 0.02
ALIGNMENT_TOLERANCE = 0.02
ACCURACY = 0.9
SHORT: dict[Setting, str] = {
    "alone": "alone",
    "fused": "fused",
    "together": "in one picture",
    "regions": "with regions",
    "places": "bound to places",
}


@dataclass(frozen=True)
class Table:
    """Cells of text under a title."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class HeatMap:
    """Numbers to be coloured from 0 to `high`; rows and columns are the concepts."""

    title: str
    names: list[str]
    values: list[list[float]]
    high: float
    digits: int
    note: str = ""

    def shade(self, value: float) -> float:
        """How strongly a cell is coloured, 0 to 1."""
        return min(1.0, max(0.0, value / self.high)) if self.high else 0.0


@dataclass(frozen=True)
class Verdict:
    """One thing that should hold for the first method, and whether it does."""

    claim: str
    measured: str
    holds: bool


def verdicts(evaluation: Evaluation) -> list[Verdict]:
    """Whether fusing by the first method keeps what single concepts have."""
    method = evaluation.methods[0]
    lost = method.identity_lost()
    worst = max(range(len(lost)), key=lost.__getitem__)
    found = [
        Verdict(
            f"identity similarity of each fused concept within {IDENTITY_TOLERANCE} of the same concept alone",
            f"largest loss {lost[worst]:+.3f} ({evaluation.subjects[worst].name})",
            lost[worst] <= IDENTITY_TOLERANCE,
        )
    ]
    for setting in known(method)[1:]:
        accuracy = method.scores[setting].accuracy
        claim = f"nearest photo is the right concept's, {SHORT[setting]}: at least {ACCURACY:.0%}"
        found.append(Verdict(claim, f"{accuracy:.1%}", accuracy >= ACCURACY))
    base, own = fmean(evaluation.base_alignment["fused"]), fmean(method.scores["fused"].alignment)
    claim = f"text alignment, fused, not more than {ALIGNMENT_TOLERANCE} below the base's"
    return [*found, Verdict(claim, f"{own:.3f}, base {base:.3f}", own >= base - ALIGNMENT_TOLERANCE)]


def known(method: MethodResult) -> list[Setting]:
    """The settings that it was measured in, in order."""
    return [setting for setting in SHORT if setting in method.scores]


def one_in_picture(evaluation: Evaluation) -> Table:
    """The methods where one concept is in the picture: alone on the base, and with the others fused in."""
    settings: list[Setting] = ["alone", "fused"]
    columns = ["method", "trainable parameters", "identity alone", "identity fused", "largest loss by fusing"]
    rows = [
        [method.name, f"{method.parameters:,}", *_identity(method, settings), f"{max(method.identity_lost()):+.3f}"]
        for method in evaluation.methods
    ]
    return _with_rest(Table("One concept in the picture", columns, rows), evaluation, settings)


def all_in_picture(evaluation: Evaluation) -> Table:
    """The methods where all concepts are in the picture: without regions, with them, bound to them."""
    settings: list[Setting] = ["together", "regions"]
    settings += ["places"] if any("places" in method.scores for method in evaluation.methods) else []
    columns = ["method", "identity", *(f"identity, {SHORT[setting]}" for setting in settings[1:])]
    rows = [[method.name, *_identity(method, settings)] for method in evaluation.methods]
    return _with_rest(Table("All concepts in one picture", columns, rows), evaluation, settings)


def _identity(method: MethodResult, settings: Sequence[Setting]) -> list[str]:
    cells = []
    for setting in settings:
        seeds = zip(*method.scores[setting].identity, strict=True) if setting in method.scores else ()
        cells.append(mean_and_spread([fmean(seed) for seed in seeds]))
    return cells


def _with_rest(table: Table, evaluation: Evaluation, settings: Sequence[Setting]) -> Table:
    """The table with accuracy and alignment as further columns, and the base as its last row."""
    columns = [*table.columns]
    for measure in ("nearest photo right", "text alignment"):
        columns += [f"{measure}, {SHORT[setting]}" for setting in settings]
    rows = [
        [
            *row,
            *(f"{method.scores[s].accuracy:.1%}" if s in method.scores else "" for s in settings),
            *(mean_and_spread(method.scores[s].alignment) if s in method.scores else "" for s in settings),
        ]
        for row, method in zip(table.rows, evaluation.methods, strict=True)
    ]
    blank = [""] * (len(table.columns) - 1 + len(settings))
    rows.append(["base", *blank, *(mean_and_spread(evaluation.base_alignment[setting]) for setting in settings)])
    note = f"Mean ± standard deviation over {evaluation.settings['seeds']} sampling seeds."
    return Table(table.title, columns, rows, note)


def by_concept(evaluation: Evaluation, method: MethodResult) -> Table:
    """Identity similarity of each concept in each setting."""
    rows = []
    for number, (subject, lost) in enumerate(zip(evaluation.subjects, method.identity_lost(), strict=True)):
        measured = [mean_and_spread(method.scores[setting].identity[number]) for setting in known(method)]
        rows.append(
            [f"{subject.name} ({subject.class_word})", f"{subject.own_similarity:.3f}", *measured, f"{lost:+.3f}"]
        )
    columns = [
        "concept",
        "own photos with one another",
        *(SHORT[setting] for setting in known(method)),
        "lost by fusing",
    ]
    return Table(f"Identity similarity, {method.name}", columns, rows, "Mean cosine with the concept's own photos.")


def confusions(evaluation: Evaluation, method: MethodResult) -> list[HeatMap]:
    """Whose photo is nearest, one map for each setting."""
    names = [subject.name for subject in evaluation.subjects]
    missing = any(len(row) > len(names) for scores in method.scores.values() for row in scores.confusion)
    note = "Who was not found has no nearest photo: such rows add up to less than one." if missing else ""
    return [
        HeatMap(
            f"{method.name}, {SHORT[setting]}",
            names,
            [[count / max(1, sum(row)) for count in row[: len(names)]] for row in method.scores[setting].confusion],
            high=1.0,
            digits=2,
            note=note,
        )
        for setting in known(method)
    ]


def interference(evaluation: Evaluation) -> list[HeatMap]:
    """Overlap and activation energy, once for methods that share their deltas."""
    names = [subject.name for subject in evaluation.subjects]
    maps: list[HeatMap] = []
    seen: list[list[list[float]]] = []
    for method in evaluation.methods:
        if method.energy in seen:
            continue
        seen.append(method.energy)
        kind = method.name.rpartition(" ")[0]
        highest = max(max(row) for row in method.energy)
        maps += [
            HeatMap(f"{kind}: overlap of deltas", names, method.overlap, 1.0, 3, "|cosine|, mean over layers"),
            HeatMap(
                f"{kind}: activation energy",
                names,
                method.energy,
                highest,
                3,
                "‖Δx‖ / ‖Wx‖, mean over layers; row: whose delta, column: whose prompts",
            ),
        ]
    return maps


def mean_and_spread(values: Sequence[float]) -> str:
    """`0.912 ± 0.004`; nothing where nothing was measured."""
    return f"{fmean(values):.3f} ± {spread(values):.3f}" if values else ""
