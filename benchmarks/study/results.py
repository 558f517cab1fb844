"""From runs to figures by identity: what the tables and curves are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from study.judging import Seen
from study.methods.registry import Method
from study.plan import Plan
from study.runs import Journal, Key, Run
from study.statistics import Estimate, estimate_difference

Identity = tuple[int, int]
"""Set and place in it: what methods are paired by."""


@dataclass(frozen=True)
class Outcome:
    """One method at one K, over its sets of identities. Of every figure, a value for each identity.

    diverged: how many sets ended in a training or pictures that are not finite, of `sets`.
    """

    method: Method
    count: int
    sets: int
    diverged: int
    alone: dict[Identity, float]
    alone_accuracy: dict[Identity, float]
    alone_alignment: dict[Identity, float]
    fused: dict[Identity, float]
    accuracy: dict[Identity, float]
    alignment: dict[Identity, float]
    pairs: dict[Identity, float]
    pairs_accuracy: dict[Identity, float]
    pairs_alignment: dict[Identity, float]
    regions: dict[Identity, float]
    regions_accuracy: dict[Identity, float]
    regions_alignment: dict[Identity, float]
    fusing_seconds: float
    megabytes: float
    parameters: float

    @property
    def loss(self) -> dict[Identity, float]:
        """How much identity each concept loses by being fused; empty where there is no concept alone."""
        return {key: self.alone[key] - value for key, value in self.fused.items() if key in self.alone}


def outcome(plan: Plan, journal: Journal, method: Method, count: int) -> Outcome | None:
    """What the runs say of a method at a K; None where none of its fusions is done."""
    seeds = [seed for seed in plan.seeds(method, count) if plan.fused(method, seed, count) in journal]
    if not seeds:
        return None
    fusions = {seed: journal[plan.fused(method, seed, count)] for seed in seeds}
    fine = {seed: run for seed, run in fusions.items() if run.status == "done"}
    alone = {
        (key.seed, key.subject): journal[key]
        for seed in seeds
        for key in plan.alone(method, seed, count)
        if key in journal and journal[key].status == "done"
    }
    alone_seen = {identity: _scene(run, "singles") for identity, run in alone.items()}
    singles, pairs, regions = (_by_identity(fine, scene) for scene in ("singles", "pairs", "regions"))
    return Outcome(
        method,
        count,
        sets=len(seeds),
        diverged=len(fusions) - len(fine),
        alone=_identity(alone_seen),
        alone_accuracy=_accuracy(alone_seen, count),
        alone_alignment=_alignment(alone_seen),
        fused=_identity(singles),
        accuracy=_accuracy(singles, count),
        alignment=_alignment(singles),
        pairs=_identity(pairs),
        pairs_accuracy=_accuracy(pairs, count),
        pairs_alignment=_alignment(pairs),
        regions=_identity(regions),
        regions_accuracy=_accuracy(regions, count),
        regions_alignment=_alignment(regions),
        fusing_seconds=_mean_figure(fine.values(), "fusing seconds"),
        megabytes=_mean_figure(alone.values(), "megabytes"),
        parameters=_mean_figure(alone.values(), "parameters"),
    )


def outcomes(plan: Plan, journal: Journal, count: int) -> list[Outcome]:
    """All methods that have been fused at this K, in the order of the plan."""
    found = [outcome(plan, journal, method, count) for method in plan.methods]
    return [one for one in found if one is not None]


def excess_loss(one: Outcome, other: Outcome) -> Estimate | None:
    """How much more identity `one` loses by fusing than `other`, by identity; None where they share none."""
    return estimate_difference(one.loss, other.loss) if one.loss.keys() & other.loss.keys() else None


def depth_curves(plan: Plan, journal: Journal) -> dict[int, list[float]]:
    """Identity of each subject alone by the band that it was trained in.

    Only bands in which all of the subjects were trained: some are harder than others.
    """
    curves: dict[int, list[float]] = {}
    for key in plan.depths():
        if key in journal and journal[key].status == "done":
            curves.setdefault(key.place, []).append(fmean(part.identity for part in _scene(journal[key], "singles")))
    whole = plan.settings.depth_subjects
    return {band: values for band, values in sorted(curves.items()) if len(values) == whole}


def missing(plan: Plan, journal: Journal) -> list[Key]:
    """Runs that are not done yet."""
    return [key for key in plan.runs() if key not in journal]


def _scene(run: Run, scene: str) -> list[Seen]:
    return run.seen.get(scene, [])


def _by_identity(fusions: dict[int, Run], scene: str) -> dict[Identity, list[Seen]]:
    groups: dict[Identity, list[Seen]] = {}
    for seed, run in fusions.items():
        for part in _scene(run, scene):
            groups.setdefault((seed, part.wanted), []).append(part)
    return groups


def _identity(groups: dict[Identity, list[Seen]]) -> dict[Identity, float]:
    return {key: fmean(part.identity for part in parts) for key, parts in groups.items()}


def _accuracy(groups: dict[Identity, list[Seen]], count: int) -> dict[Identity, float]:
    return {key: fmean(part.is_right(count) for part in parts) for key, parts in groups.items()}


def _alignment(groups: dict[Identity, list[Seen]]) -> dict[Identity, float]:
    return {key: fmean(part.alignment for part in parts) for key, parts in groups.items()}


def _mean_figure(runs: Iterable[Run], name: str) -> float:
    values = [run.figures[name] for run in runs if name in run.figures]
    return fmean(values) if values else float("nan")
