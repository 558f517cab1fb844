"""The language study: two small models trained from scratch, then adapted to a shifted task by every method.

    python benchmarks/language_study.py list                         # what is left, and about how long it takes
    python benchmarks/language_study.py run --base llama --minutes 60  # goes on where it was stopped
    python benchmarks/language_study.py steps                        # seconds a step against LoRA, in turn
    python benchmarks/language_study.py report                       # docs/results/language-study.md, and its figure

Everything lies in --out: the bases, `runs-BASE.jsonl` (one line a run), `sizes-BASE.json`. One process may work on each
base at once: give each OMP_NUM_THREADS=1. First come the rates, then the seeds at the best rate of each method.
A method's rates are climbed alike for all: from the middle of one grid toward the better neighbour, until both
neighbours of the best are worse or the grid ends. Where methods are named, the others can be added later.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edge import run as run_verbs
from lines import Lines
from spectral_fusion.errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
OUT, NAME, CONCLUSIONS = Path("out/language-study"), "language-study", "conclusions.md"
KEY = ("base", "method", "purpose", "rate", "seed", "size", "steps")
SEARCH_SEED = 100

Out = Annotated[Path, typer.Option(help="Folder of the study.")]
Bases = Annotated[list[str] | None, typer.Option("--base", help="Only these bases; may be given often.")]
Methods = Annotated[list[str] | None, typer.Option("--method", help="Only these methods; may be given often.")]


@dataclass(frozen=True)
class Scale:
    """How large the study is.

    rates: the grid, ascending; a search begins in its middle.
    rank: of the LoRA whose number of trained parameters all others have.
    """

    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    seeds: int = 3
    steps: int = 150
    rank: int = 4
    width: int = 96
    blocks: int = 2
    base_steps: int = 1500


def record(out: Path, base: str) -> Lines:
    return Lines(out / f"runs-{base}.jsonl", KEY)


def base_of(base: Any, out: Path, scale: Scale) -> Any:
    """The trained base of the study; trained where it is not in the folder."""
    from language.models import trained_base

    return trained_base(base, out, print, width=scale.width, blocks=scale.blocks, steps=scale.base_steps)


def sizes_of(out: Path, base: Any, model: Any, methods: list[str], scale: Scale) -> dict[str, int]:
    """The size of each method at equal trained parameters; found once and kept."""
    from language.methods import METHODS, Context, budget, matched_size

    path = out / f"sizes-{base.name}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    scope = f"{scale.width}-{scale.blocks}-{scale.rank}"
    found: dict[str, int] = kept.get(scope, {})
    for name in methods:
        if name not in found:
            at = Context(model, base.targets, base.steps(scale.steps))
            found[name] = matched_size(METHODS[name], at, budget(at, scale.rank))
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept | {scope: found}), encoding="utf-8")
    return {name: found[name] for name in methods}


def plan(base: str, sizes: dict[str, int], lines: Lines, scale: Scale) -> Iterator[dict[str, Any]]:
    """The runs of a base that can be said by now: what each search asks for next, then every seed at the best rate.

    Ask for one run after another while `lines` grows: a rate depends on the scores of those before.
    """
    from language.models import BASES
    from language.tables import best_rate

    steps = BASES[base].steps(scale.steps)
    for name, size in sizes.items():
        while (rate := next_rate(scale.rates, tried(lines, base, name))) is not None:
            run = _run(base, name, "search", rate, SEARCH_SEED, size, steps)
            yield run
            if run not in lines:  # it was not done: what would follow is open
                break
    searched = [name for name in sizes if next_rate(scale.rates, tried(lines, base, name)) is None]
    for seed in range(scale.seeds):
        for name in searched:
            if chosen := best_rate([*lines], base, name):
                yield _run(base, name, "test", chosen[0], seed, sizes[name], steps)


def tried(lines: Lines, base: str, method: str) -> dict[float, tuple[float, float]]:
    """The scores of the rates that were searched: the higher, the better."""
    from language.tables import score

    wanted = (base, method, "search")
    return {line["rate"]: score(line) for line in lines if (line["base"], line["method"], line["purpose"]) == wanted}


def next_rate(rates: Sequence[float], scores: Mapping[float, tuple[float, float]]) -> float | None:
    """The next rate to try, or None where the best one has no neighbour that was not tried."""
    if not scores:
        return rates[len(rates) // 2]
    place = rates.index(max(scores, key=scores.__getitem__))
    around = [rates[i] for i in (place + 1, place - 1) if 0 <= i < len(rates)]
    return next((rate for rate in around if rate not in scores), None)


def _run(base: str, method: str, purpose: str, rate: float, seed: int, size: int, steps: int) -> dict[str, Any]:
    return dict(zip(KEY, (base, method, purpose, rate, seed, size, steps), strict=True))


def study(out: Path, bases: list[str], methods: list[str], scale: Scale, until: float) -> int:
    """Do what is missing; returns how many runs are left. None begins after `until`, in `time.process_time()`."""
    from language.models import BASES, accuracy
    from language.training import Adaptation, train

    left = 0
    for name in bases:
        base, lines = BASES[name], record(out, name)
        model = base_of(base, out, scale)
        before = {task.name: accuracy(model, task, "test") for task in (base.learned, base.shifted)}
        (out / f"before-{name}.json").write_text(json.dumps(before), encoding="utf-8")
        print(f"{name}: {before}", flush=True)
        sizes = sizes_of(out, base, model, methods, scale)
        for run in plan(name, sizes, lines, scale):
            if run in lines:
                continue
            if time.process_time() > until:
                left += 1
                continue
            found = train(base, model, Adaptation(**run))
            lines.add(run | found)
            said = f"{run['method']} {run['purpose']} {run['rate']:g} seed {run['seed']}"
            print(f"{name}: {said}: accuracy {found['accuracy']:.3f}, {1000 * found['step']:.0f} ms a step", flush=True)
    return left


@app.command("list")
def list_left(out: Out = OUT, base: Bases = None, method: Methods = None) -> None:
    """How far the study is, and how long a run takes by those that are done."""
    scale = Scale()
    for name in known_bases(base):
        lines, methods = record(out, name), known_methods(method)
        own = [line for line in lines if line["method"] in methods]
        searched = sum(next_rate(scale.rates, tried(lines, name, one)) is None for one in methods)
        tests = sum(line["purpose"] == "test" for line in own)
        steps = [line["step"] * line["steps"] for line in own]
        each = f", {sum(steps) / len(steps):.0f} s of training each" if steps else ""
        said = f"{searched} of {len(methods)} methods have their rate, {tests} of {len(methods) * scale.seeds} seeds"
        print(f"{name}: {len(own)} runs are done{each}; {said}")


@app.command()
def run(
    out: Out = OUT,
    base: Bases = None,
    method: Methods = None,
    minutes: Annotated[float, typer.Option(help="Begin no run after so long of the processor.")] = float("inf"),
    seeds: Annotated[int, typer.Option(help="Test runs a method.")] = Scale.seeds,
    steps: Annotated[int, typer.Option(help="Of an adaptation.")] = Scale.steps,
) -> None:
    """Do the runs that are not done yet."""
    until = time.process_time() + 60 * minutes
    left = study(out, known_bases(base), known_methods(method), Scale(seeds=seeds, steps=steps), until)
    print(f"{left} runs are left, and the seeds of methods whose rates are open" if left else "all runs are done")


@app.command("steps")
def time_steps(
    out: Out = OUT,
    base: Bases = None,
    method: Methods = None,
    rounds: Annotated[int, typer.Option(help="Steps of each method.")] = 103,
) -> None:
    """Time a training step of each method against LoRA's, in turn."""
    from language.models import BASES
    from language.timing import middle, step_ratios
    from spectral_fusion.atomic import atomic_file

    scale, methods = Scale(), known_methods([*method, "lora"] if method else None)
    for name in known_bases(base):
        model = BASES[name].make(scale.width, scale.blocks)  # a step takes as long whatever the weights are
        found = step_ratios(BASES[name], model, sizes_of(out, BASES[name], model, methods, scale), rounds)
        with atomic_file(out / f"steps-{name}.json") as part:
            part.write_text(json.dumps({one: [round(x, 4) for x in ratios] for one, ratios in found.items()}))
        for one, ratios in found.items():
            print(f"{name}: {one} {middle(ratios)}", flush=True)


@app.command()
def report(
    out: Out = OUT, to: Annotated[Path, typer.Option(help="Folder for the report, its figure and its runs.")] = RESULTS
) -> None:
    """Write tables and loss curves from the runs, and keep the runs beside them."""
    from language.models import BASES
    from language.tables import draw_losses, report_text
    from report import machine
    from spectral_fusion.atomic import atomic_file

    lines = [line for name in BASES for line in record(out, name)]
    if not any(line["purpose"] == "test" for line in lines):
        raise InputError(f"{out} holds no test runs; do some first: python benchmarks/language_study.py run")
    first, timed = _kept(out, "before"), _kept(out, "steps")
    read = to / NAME / CONCLUSIONS
    follows = read.read_text(encoding="utf-8") if read.is_file() else ""
    (to / NAME).mkdir(parents=True, exist_ok=True)
    for name in first:
        for kept in (f"runs-{name}.jsonl", f"before-{name}.json", f"steps-{name}.json"):
            if (out / kept).is_file() and out.resolve() != (to / NAME).resolve():
                shutil.copyfile(out / kept, to / NAME / kept)
    with atomic_file(to / f"{NAME}.png") as part:
        draw_losses(lines).savefig(part, format="png", dpi=110)
    with atomic_file(to / f"{NAME}.md") as part:
        part.write_text(report_text(lines, first, machine(), timed, follows), encoding="utf-8")
    print(to / f"{NAME}.md")


def _kept(out: Path, kind: str) -> dict[str, Any]:
    """What was written beside the runs of each base, where it was."""
    paths = {name: out / f"{kind}-{name}.json" for name in known_bases(None)}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}


def known_bases(names: list[str] | None) -> list[str]:
    from language.models import BASES

    return _known(names, list(BASES), "base")


def known_methods(names: list[str] | None) -> list[str]:
    from language.methods import METHODS

    return _known(names, list(METHODS), "method")


def _known(names: list[str] | None, all_names: list[str], kind: str) -> list[str]:
    if unknown := [name for name in names or () if name not in all_names]:
        raise InputError(f"no {kind} is called {unknown[0]!r}; use some of {', '.join(all_names)}")
    return [name for name in all_names if not names or name in names]


def main() -> None:
    run_verbs(app)


if __name__ == "__main__":
    main()
