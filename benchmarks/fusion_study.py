"""The fusion study: trains drawn identities by every method, fuses them, draws, scores, and writes the report.

    python benchmarks/fusion_study.py                        # what there is to do, and about how long it takes
    python benchmarks/fusion_study.py tune                   # learning rates, on identities that are not in the study
    python benchmarks/fusion_study.py run --hours 5          # goes on where it was stopped
    python benchmarks/fusion_study.py report                 # tables and figures, of the runs in docs/results/archive
    python benchmarks/fusion_study.py report --out out/fusion-study  # of runs that were just done; keeps them there

Everything lies in --out: `runs.jsonl` (one line a run), concepts, photos, pictures, `rates.json`. Processes that share
no kind of adapter may work in one folder at once: give each its --method, and OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from edge import run as run_verbs

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Out = Annotated[Path, typer.Option(help="Folder of the study.")]
Methods = Annotated[list[str] | None, typer.Option("--method", help="Only these methods; may be given often.")]
Counts = Annotated[list[int] | None, typer.Option("--count", help="Only these K; may be given often.")]
Seeds = Annotated[int | None, typer.Option(help="Sets of identities.")]
Steps = Annotated[int | None, typer.Option(help="Training steps of a concept.")]
Base = Annotated[str, typer.Option(help="What `spectral-fusion --base` takes; the identities are toybox's.")]
OUT = Path("out/fusion-study")
RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results" / "archive"


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Drawn identities, alone and fused, by every method that a user could pick instead."""
    if context.invoked_subcommand is None:
        run(dry_run=True)


@app.command()
def tune(out: Out = OUT, method: Methods = None, steps: Steps = None, base: Base = "toybox") -> None:
    """Choose the learning rates of each kind of adapter."""
    from study.tuning import tune as tune_rates

    laboratory, plan = _prepare(out, base, method, [], None, steps)
    rates = tune_rates(laboratory, [method.family for method in plan.methods])
    for family, factor in rates.factors.items():
        tried = ", ".join(f"{f:g}: {score:.3f}" for f, score in sorted(rates.scores[family].items()))
        print(f"{family}: rates times {factor:g}   ({tried})")


@app.command()
def run(
    out: Out = OUT,
    method: Methods = None,
    count: Counts = None,
    seeds: Seeds = None,
    steps: Steps = None,
    base: Base = "toybox",
    depth: Annotated[bool, typer.Option(help="Train a few identities in every band too.")] = True,
    hours: Annotated[float, typer.Option(help="Begin no run after so long.")] = float("inf"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what is left, with an estimate.")] = False,
) -> None:
    """Do the runs that are not done yet."""
    laboratory, plan = _prepare(out, base, method, count or [], seeds, steps, depth=depth)
    if dry_run:
        _list(laboratory, plan)
        return
    left = laboratory.conduct(plan, until=time.monotonic() + 3600 * hours)
    print(f"{left} runs are left" if left else "all runs are done")


@app.command()
def report(
    out: Out = RESULTS / "fusion-study",
    method: Methods = None,
    count: Counts = None,
    seeds: Seeds = None,
    steps: Steps = None,
    base: Base = "toybox",
    to: Annotated[Path, typer.Option(help="Folder for the report, its figures, and what it is made of.")] = RESULTS,
) -> None:
    """Write tables and figures from the runs."""
    from report import machine
    from study.report import write_report

    laboratory, plan = _prepare(out, base, method, count or [], seeds, steps)
    for path in write_report(plan, laboratory.journal(), out, to, machine=machine()):
        print(path)


def _prepare(
    out: Path,
    base: str,
    names: Sequence[str] | None,
    counts: Sequence[int],
    seeds: int | None,
    steps: int | None,
    *,
    depth: bool = True,
) -> tuple[Any, Any]:
    """The laboratory, and the plan at the rates that were tuned."""
    from spectral_fusion.base.load import open_base
    from spectral_fusion.toybox import scorers
    from study.conduct import Laboratory
    from study.methods.registry import choose_methods
    from study.plan import Plan
    from study.settings import Settings
    from study.tuning import RATES, Rates

    settings = Settings()
    given: dict[str, Any] = {"counts": tuple(counts) or None, "seeds": seeds, "seeds_of_few": seeds, "steps": steps}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    laboratory = Laboratory(out, open_base(base), scorers, settings, lambda text: print(text, flush=True))
    factors = Rates.load(out / RATES, laboratory.digest).factors
    return laboratory, Plan(settings, choose_methods(settings, names or ()), factors, depth)


def _list(laboratory: Any, plan: Any) -> None:
    from study.costs import measure_costs
    from study.plan import estimate

    costs = measure_costs(laboratory)
    journal = laboratory.journal()
    seconds = estimate(plan, costs, laboratory.shelf.has, lambda key: key in journal)
    for key, took in seconds.items():
        print(f"{took:7.0f} s  {key}")
    print(f"{len(seconds)} runs are left, about {sum(seconds.values()) / 3600:.1f} hours ({costs})")


def main() -> None:
    run_verbs(app)


if __name__ == "__main__":
    main()
