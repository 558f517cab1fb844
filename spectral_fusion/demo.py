"""What `spectral-fusion demo` runs: shipped examples trained, fused, drawn and scored on the bundled base."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spectral_fusion.atomic import atomic_file, atomic_folder
from spectral_fusion.base.interface import Base
from spectral_fusion.concept import Concept, Library
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.evaluate import (
    Detector,
    EvaluateConfig,
    Evaluation,
    Finder,
    Scorers,
    build_methods,
    evaluate,
    train_loras,
)
from spectral_fusion.fusion import fuse
from spectral_fusion.report import markdown, write_report, write_sheet
from spectral_fusion.toybox.draw import write_identity
from spectral_fusion.toybox128.draw import TOYBOX128
from spectral_fusion.training import Progress, TrainConfig, train_concept

OnProgress = Callable[[str], None]
PHOTOS = 6


@dataclass(frozen=True)
class Example:
    """A shipped example: the identity of the drawn world with this class and number."""

    class_word: str
    number: int


EXAMPLES = {
    "tom": Example("cat", 1),
    "kit": Example("cat", 9),
    "rex": Example("dog", 8),
    "bot": Example("robot", 0),
    "fin": Example("fish", 5),
    "dot": Example("car", 2),
    "eve": Example("woman", 6),
    "sam": Example("man", 0),
}
CHOSEN = ("kit", "fin", "eve")
METHODS = ("spectral-sum", "spectral-mean", "lora-sum", "lora-mean")


@dataclass(frozen=True)
class DemoFiles:
    """What the demo wrote."""

    report: Path
    data: Path
    contact_sheet: Path
    evaluation: Evaluation


def run_demo(
    out: str | Path,
    *,
    base: Base,
    scorers: Scorers,
    detector: Detector | Finder | None = None,
    names: Sequence[str] = CHOSEN,
    methods: Sequence[str] = METHODS,
    config: EvaluateConfig | None = None,
    training: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda _: None,
) -> DemoFiles:
    """Train examples, fuse them, draw and score them, write a report. What was trained before is kept.

    Args:
        base: the bundled base.
        training: settings of `TrainConfig` other than the preset's.
        on_progress: told what is done now.
    """
    out, begin = Path(out), time.perf_counter()
    folders = [ImageFolder.scan(example_images(name, out / "images")) for name in names]
    library = Library(out / "concepts")
    concepts, facts = [], {}
    for place, (name, folder) in enumerate(zip(names, folders, strict=True)):
        settings = {"with_concepts": tuple(names[:place])} | dict(training or {})
        concept, facts[f"training {name}"] = train_example(name, folder, library, base, settings, on_progress)
        concepts.append(concept)
    facts["fusing"] = f"{seconds_to_fuse(base, concepts):.2f} s"
    chosen = build_methods(
        methods,
        concepts,
        lambda: train_loras(concepts, folders, out / "lora", base=base, on_progress=on_progress),
    )
    evaluation = evaluate(base, chosen, folders, scorers, config, detector=detector, on_progress=on_progress)
    facts["everything"] = f"{time.perf_counter() - begin:.0f} s"
    evaluation = replace(evaluation, facts=facts)
    report, data = write_report(evaluation, out, title="spectral-fusion demo")
    return DemoFiles(report, data, write_sheet(evaluation, out / "contact-sheet.png"), evaluation)


def example_images(name: str, out: Path, shipped: Path = Path("concepts")) -> Path:
    """The folder of images of an example: the shipped one, or drawn into `out` where there is no checkout."""
    if (shipped / name / "images").is_dir():
        return shipped / name / "images"
    if not (out / name).is_dir():
        example = EXAMPLES[name]
        with atomic_folder(out / name) as part:
            thing = TOYBOX128.identity(example.number, example.class_word)
            write_identity(thing, part, count=PHOTOS, seed=example.number, world=TOYBOX128)
    return out / name


def train_example(
    name: str,
    folder: ImageFolder,
    library: Library,
    base: Base,
    training: Mapping[str, Any],
    on_progress: OnProgress,
) -> tuple[Concept, str]:
    """The example's concept as its file holds it, and how long its training took: none where nothing has changed."""
    begin, steps = time.perf_counter(), 0

    def count(progress: Progress) -> None:
        nonlocal steps
        steps += 1
        on_progress(f"training {name}: step {progress.step} of {progress.steps}")

    on_progress(f"preparing to train {name}")
    config = TrainConfig(name=name, class_word=EXAMPLES[name].class_word, **training)
    train_concept(folder, config, library=library, base=base, resume=True, force=True, on_progress=count)
    took = f"{time.perf_counter() - begin:.1f} s, {steps} steps" if steps else "kept from an earlier run"
    return library.get(name), took


def seconds_to_fuse(base: Base, concepts: Sequence[Concept]) -> float:
    """Wall-clock time of fusing, without loading."""
    begin = time.perf_counter()
    fusion = fuse(base, dict.fromkeys(concepts, 1.0))
    seconds = time.perf_counter() - begin
    fusion.undo()
    return seconds


def write_markdown(evaluation: Evaluation, path: str | Path) -> Path:
    """Write the figures for the documentation."""
    with atomic_file(Path(path)) as part:
        part.write_text(
            markdown(evaluation, "The demo's figures", "spectral-fusion demo --docs FILE"), encoding="utf-8"
        )
    return Path(path)
