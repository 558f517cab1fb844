"""Identity of one subject against trained numbers: runs the study behind docs/theory/parameter-efficiency.md.

    python benchmarks/parameter_efficiency.py run --minutes 10    # goes on where it was stopped
    python benchmarks/parameter_efficiency.py run --subjects 1 --factor 0.3 --method lora   # what is wanted first
    python benchmarks/parameter_efficiency.py report              # writes the page from the runs

Runs lie in --out, one line each. The middle and the ends of each method's sizes come first, at every rate; then the
sizes between, then other subjects.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edge import run as run_verbs
from lines import Lines
from spectral_fusion.errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

OUT = Path("out/parameter-efficiency")
KEY = ("subject", "factor", "method", "size", "steps", "seed")
FACTORS = (1.0, 0.3, 3.0, 0.1, 0.03)
STEPS, SEED, SUBJECTS = 120, 0, 3

Out = Annotated[Path, typer.Option(help="Folder of the study.")]
Run = dict[str, Any]


def plan(subjects: int, factors: tuple[float, ...] = FACTORS, steps: int = STEPS) -> Iterator[Run]:
    """The runs in the order in which they are done, so that a part is of use.

    First the middle and the two ends of every method's sizes, in turn of the methods, at every rate; then the sizes
    between; then another subject.
    """
    from theory.efficiency import METHODS

    longest = max(len(method.sizes) for method in METHODS.values())
    for subject in range(subjects):
        for part in (slice(0, 3), slice(3, longest)):
            for factor in factors:
                for place in range(longest)[part]:
                    for name, method in METHODS.items():
                        sizes = middle_and_ends_first(method.sizes)
                        if place < len(sizes) and (name != "embeddings" or factor == 1):
                            found = {"subject": subject, "factor": factor, "method": name, "size": sizes[place]}
                            yield found | {"steps": steps, "seed": SEED}


def middle_and_ends_first(sizes: Sequence[int]) -> list[int]:
    """Each size once."""
    return [*dict.fromkeys((sizes[len(sizes) // 2], sizes[0], sizes[-1], *sizes))]


def selected(subjects: int, **only: Sequence[Any] | None) -> list[Run]:
    """The plan's runs with these methods, factors and sizes; None: with all."""
    found = [*plan(subjects)]
    for key, given in only.items():
        known = dict.fromkeys(run[key] for run in found)
        if unknown := [one for one in given or () if one not in known]:
            raise InputError(f"no {key} is {unknown[0]!r}; use some of {', '.join(map(str, known))}")
        found = [run for run in found if not given or run[key] in given]
    return found


@app.command()
def run(
    out: Out = OUT,
    subjects: Annotated[int, typer.Option(help="How many drawn subjects.")] = SUBJECTS,
    minutes: Annotated[float, typer.Option(help="Begin no run after so long of the processor.")] = float("inf"),
    method: Annotated[list[str] | None, typer.Option(help="Only these methods; may be given often.")] = None,
    factor: Annotated[list[float] | None, typer.Option(help="Only these factors of the rates.")] = None,
    size: Annotated[list[int] | None, typer.Option(help="Only these sizes, which the methods named have.")] = None,
) -> None:
    """Do the runs that are not done yet."""
    wanted = selected(subjects, method=method, factor=factor, size=size)
    from spectral_fusion.base.load import open_base
    from spectral_fusion.evaluate.similarity import Photos
    from spectral_fusion.toybox import scorers
    from study.identities import photos, study_subjects
    from study.judging import Jury
    from study.settings import Settings
    from theory.efficiency import score, settings_of, train

    until, base, settings = time.process_time() + 60 * minutes, open_base("toybox"), Settings(pictures=4)
    own = study_subjects(0, subjects)
    folders = [photos(subject, out / "photos", settings.photos) for subject in own]
    jury = Jury(base, scorers, Photos.of(folders, scorers), own, settings)
    done = Lines(out / "runs.jsonl", KEY)
    for one in wanted:
        if one in done:
            continue
        if time.process_time() > until:
            break
        subject, begin = own[one["subject"]], time.perf_counter()
        config = settings_of(base, subject, one["method"], one["factor"], one["steps"], one["seed"])
        trained = train(base, folders[one["subject"]], config, one["method"], one["size"])
        took = time.perf_counter() - begin
        identity = score(jury, trained, subject.trigger, one["subject"])
        pictures = len(settings.prompts) * settings.pictures
        found = {"numbers": trained.numbers, "identity": round(identity, 4), "seconds": round(took, 1)}
        done.add(one | found | {"pictures": pictures})
        print(f"{one['method']} {one['size']}, rate times {one['factor']:g}: {found}", flush=True)
    left = sum(one not in done for one in wanted)
    print(f"{left} runs are left" if left else "all runs are done")


@app.command()
def report(out: Out = OUT, subjects: int = SUBJECTS) -> None:
    """Write the page, its figure and its data from the runs."""
    from report import machine
    from theory.efficiency_page import TOPIC
    from theory.page import save_data, write_page
    from theory_pages import write_index

    runs, planned = [*Lines(out / "runs.jsonl", KEY)], [*plan(subjects)]
    save_data(TOPIC, {"runs": runs, "done": len(runs), "planned": len(planned)}, machine())
    for path in write_page(TOPIC):
        print(path)
    write_index()


if __name__ == "__main__":
    run_verbs(app)
