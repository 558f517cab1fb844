"""The study's report as Markdown: tables from the runs, and what follows from them, said plainly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from study.methods.registry import GRADIENT_FUSION, OURS, Method
from study.plan import Plan
from study.results import Identity, Outcome, excess_loss, missing, outcomes
from study.runs import Journal
from study.statistics import Estimate, estimate_difference, estimate_mean
from study.training import ROTATIONAL_STARTING_RATES, STARTING_RATES

CLAIMED = (3, 8)
"""The K at which the project's default has to be the best."""
NOTHING = "-"
SHARE_OF_TIME = 0.01
"""Of gradient fusion's, which fusing may take."""


def markdown(
    plan: Plan, journal: Journal, *, command: str, machine: str, figures: Mapping[str, str], conclusions: str = ""
) -> str:
    """The whole report. What is not measured yet is said to be missing.

    Args:
        figures: caption -> file name.
        conclusions: a person's words, in Markdown.
    """
    counts = [count for count in plan.settings.counts if outcomes(plan, journal, count)]
    lines = ["# Fusion study", "", _introduction(plan), ""]
    if left := missing(plan, journal):
        lines += [f"> Not finished: {len(left)} runs are missing, the first is `{left[0]}`.", ""]
    lines += ["## What follows", "", *(f"* {claim}" for claim in claims(plan, journal)), ""]
    if conclusions:
        lines += [conclusions.strip(), ""]
    for count in counts:
        found = outcomes(plan, journal, count)
        lines += [f"## K = {count}", "", *_identity_table(found), "", *_pairs_table(found), ""]
        lines += ["Compared with ours, by identity:", "", *_paired_table(found), ""]
    lines += ["## Costs", "", *_costs_table(plan, journal, counts), ""]
    lines += ["## Learning rates", "", *_rates_table(plan), ""]
    lines += ["![identity by K](fusion-study-count.png)", "", "![identity by band](fusion-study-depth.png)", ""]
    lines += [
        "![failures](fusion-study-failures.png)",
        "",
        "The worst pictures of each method: photo, alone, fused.",
        "",
    ]
    return "\n".join([*lines, f"Made by `{command}`. {machine}.", ""])


def claims(plan: Plan, journal: Journal) -> list[str]:
    """Whether the project's claim holds, and which variants help, at each K that the claim is made for."""
    said = []
    for count in CLAIMED:
        by_name = {one.method.name: one for one in outcomes(plan, journal, count)}
        if OURS not in by_name or not by_name[OURS].loss:
            said.append(f"K = {count}: not measured yet.")
            continue
        said += _claims_at(count, by_name)
    return said


def _claims_at(count: int, by_name: Mapping[str, Outcome]) -> list[str]:
    ours = by_name[OURS]
    loss = estimate_mean(list(ours.loss.values()))
    better, level = [], []
    for name, other in by_name.items():
        excess = excess_loss(other, ours)
        if name == OURS or other.method.kind != "method" or other.method.data or excess is None:
            continue
        if excess.high < 0:
            better.append(f"{other.method.title} ({excess})")
        elif excess.low <= 0:
            apart = estimate_difference(other.fused, ours.fused)
            level.append(f"{other.method.title} ({excess}; fused, its identity is {apart} above ours)")
    text = f"K = {count}: fusing costs our default {loss} of identity. "
    if not better and not level:
        text += "Every other method that needs no data loses more, outside the confidence interval."
    else:
        text += "**The claim does not hold.**"
        text += f" Losing less, outside the interval: {', '.join(better)}." if better else ""
        text += f" Not told apart from ours: {', '.join(level)}." if level else ""
    return [text, *_against_gradient_fusion(count, by_name), *_variants(count, by_name)]


def _variants(count: int, by_name: Mapping[str, Outcome]) -> list[str]:
    """What was tried to close the gap, by whether it helps."""
    groups: dict[str, list[str]] = {}
    for other in by_name.values():
        excess = excess_loss(other, by_name[OURS]) if other.method.is_variant else None
        if excess is not None:
            groups.setdefault(_verdict(excess), []).append(f"{other.method.title} ({excess})")
    if not groups:
        return []
    return [
        f"K = {count}, variants of ours: " + "; ".join(f"{word}: {', '.join(said)}" for word, said in groups.items())
    ]


def _against_gradient_fusion(count: int, by_name: Mapping[str, Outcome]) -> list[str]:
    if GRADIENT_FUSION not in by_name:
        return []
    ours, theirs = by_name[OURS], by_name[GRADIENT_FUSION]
    excess = excess_loss(ours, theirs)
    if excess is None:
        return [f"K = {count}: gradient fusion has no finished run to compare with."]
    share = ours.fusing_seconds / theirs.fusing_seconds
    verdict = "better" if excess.high < 0 else "not told apart" if excess.low <= 0 else "**worse**"
    quick = "under" if share < SHARE_OF_TIME else "**not under**"
    return [
        f"K = {count}: against gradient fusion our default is {verdict} (of identity ours loses {excess} more), in "
        f"{share:.2%} of its time, {quick} {SHARE_OF_TIME:.0%}."
    ]


def _introduction(plan: Plan) -> str:
    s = plan.settings
    return (
        f"Drawn identities on toybox, half of a set sharing a class. Additive adapters have rank {s.rank}; every "
        f"concept is trained for {s.steps} steps of {s.batch_size} pictures from {s.photos} photos, its learning rates "
        f"chosen on {s.tuning_subjects} other identities. Identity is the mean cosine with the subject's own photos; "
        "accuracy is how often the nearest photo is the subject's own; alignment is the cosine with the prompt in "
        f"plain words. {len(s.prompts) * s.pictures} pictures of each concept, {s.num_inference_steps} steps of "
        f"{s.sampler} at guidance {s.guidance_scale:g}. "
        "± is the 95 % confidence interval over identities (Student's t)."
    )


def _identity_table(found: Sequence[Outcome]) -> list[str]:
    head = ("method", "identity alone → fused", "lost", "accuracy alone → fused", "alignment alone → fused", "sets")
    rows = [
        (
            titled(one.method),
            f"{_mean(one.alone)} → {_mean(one.fused)}",
            _mean(one.loss),
            f"{_short(one.alone_accuracy)} → {_short(one.accuracy)}",
            f"{_short(one.alone_alignment)} → {_short(one.alignment)}",
            _sets(one),
        )
        for one in found
    ]
    return table(head, rows)


def _pairs_table(found: Sequence[Outcome]) -> list[str]:
    columns = ("identity", "accuracy", "alignment")
    head = ("two concepts a picture", *columns, *(f"{column}, regions" for column in columns))
    rows = [
        (
            titled(one.method),
            _mean(one.pairs),
            _short(one.pairs_accuracy),
            _short(one.pairs_alignment),
            _mean(one.regions),
            _short(one.regions_accuracy),
            _short(one.regions_alignment),
        )
        for one in found
    ]
    return table(head, rows)


def _paired_table(found: Sequence[Outcome]) -> list[str]:
    ours = next((one for one in found if one.method.name == OURS), None)
    if ours is None:
        return ["Ours is not measured yet."]
    rows = []
    for one in found:
        excess = None if one is ours else excess_loss(one, ours)
        if excess is not None:
            fused = estimate_difference(one.fused, ours.fused)
            rows.append((titled(one.method), str(excess), _verdict(excess), str(fused)))
    return table(("method", "loses more than ours by", "", "identity fused, above ours"), rows)


def _costs_table(plan: Plan, journal: Journal, counts: Sequence[int]) -> list[str]:
    by_count = {count: {one.method.name: one for one in outcomes(plan, journal, count)} for count in counts}
    rows = []
    for method in plan.methods:
        known = [by_count[count][method.name] for count in counts if method.name in by_count[count]]
        if known:
            seconds = [
                _number(by_count[count][method.name].fusing_seconds) if method.name in by_count[count] else NOTHING
                for count in counts
            ]
            rows.append((titled(method), _number(known[0].parameters, 0), _number(known[0].megabytes), *seconds))
    head = ("method", "trained numbers", "MB a concept", *(f"s to fuse {count}" for count in counts))
    return table(head, rows)


def _rates_table(plan: Plan) -> list[str]:
    families = dict.fromkeys(method.family for method in plan.methods)
    rows = [(family.name, f"{plan.factor(family):g}") for family in families]
    unet, embedding = (STARTING_RATES[f"learning_rate_{part}"] for part in ("unet", "embedding"))
    rotational = ROTATIONAL_STARTING_RATES["learning_rate_unet"]
    start = f"{unet:g} (rotational {rotational:g}, embeddings {embedding:g})"
    return table(("trained", f"learning rates, times {start}"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first column names the row."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]


def titled(method: Method) -> str:
    """How tables and curves call a method."""
    return f"{method.kind}: {method.title}" if method.is_variant else method.title


def _mean(values: Mapping[Identity, float]) -> str:
    return str(estimate_mean(list(values.values()))) if values else NOTHING


def _short(values: Mapping[Identity, float]) -> str:
    return f"{estimate_mean(list(values.values())).mean:.2f}" if values else NOTHING


def _sets(one: Outcome) -> str:
    return f"{one.sets}, {one.diverged} **diverged**" if one.diverged else str(one.sets)


def _verdict(excess: Estimate) -> str:
    if excess.low > 0:
        return "worse"
    return "better" if excess.high < 0 else "not told apart"


def _number(value: float, digits: int = 3) -> str:
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}"
