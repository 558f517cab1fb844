"""The study's pictures: identity against K, identity against the depth of the band, and where methods fail."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from spectral_fusion.atomic import atomic_file
from spectral_fusion.picture import contact_sheet
from study.conduct import PICTURES
from study.identities import photos, study_subjects
from study.methods.registry import GRADIENT_FUSION, OURS, Method
from study.plan import Plan
from study.results import depth_curves, outcome
from study.runs import Journal, Key
from study.statistics import Estimate, estimate_mean

WIDE, NARROW = (12, 6), (7, 4)  # inches
SCALE = (-0.2, 1.0)  # of identities; an interval from two of them may be far wider
CELL = 96  # px
WORST = 6  # pictures of each method
SHOWN = (OURS, "lowest", "spectral-sum", "one-band", "lora-sum", "lora-mean", "orthogonal", GRADIENT_FUSION)


def draw_counts(plan: Plan, journal: Journal, path: Path) -> Path:
    """Identity of fused concepts against how many are fused: the methods, and beside them ours with its variants."""
    compared = [method for method in plan.methods if not method.is_variant]
    variants = [method for method in plan.methods if method.is_variant or method.name == OURS]
    figure = Figure(figsize=WIDE, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, methods in zip(panels, (compared, variants), strict=True):
        for number, method in enumerate(methods):
            found = [outcome(plan, journal, method, count) for count in plan.settings.counts]
            points = {one.count: estimate_mean(list(one.fused.values())) for one in found if one and one.fused}
            _line(axes, points, method.title, number)
        axes.set_xscale("log", base=2)
        axes.set_xticks(plan.settings.counts, [str(count) for count in plan.settings.counts])
        axes.set_xlabel("K, concepts fused")
        if axes.lines:
            axes.legend(fontsize=7, handlelength=4, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    panels[0].set_ylabel("identity of one concept a picture")
    panels[0].set_ylim(*SCALE)
    return _save(figure, path)


def draw_depth(plan: Plan, journal: Journal, path: Path) -> Path:
    """Identity of concepts alone against their band: each subject, and their mean."""
    figure = Figure(figsize=NARROW, layout="constrained")
    axes = figure.subplots()
    curves = depth_curves(plan, journal)
    for place, (subject, values) in enumerate(
        zip(study_subjects(0, plan.settings.depth_subjects), zip(*curves.values(), strict=True), strict=False)
    ):
        axes.plot(list(curves), values, linewidth=0.8, marker=".", label=f"{subject.class_word} {place + 1}")
    axes.plot(list(curves), [fmean(values) for values in curves.values()], color="black", linewidth=2, label="mean")
    axes.set_ylim(*SCALE)
    axes.legend(fontsize=7)
    axes.set_xlabel(f"band of rank {plan.settings.rank}, the largest singular values first")
    axes.set_ylabel("identity alone")
    return _save(figure, path)


def draw_failures(plan: Plan, journal: Journal, root: Path, path: Path, count: int) -> Path | None:
    """The fused pictures least like their subject, under the photo and the picture of the concept alone.

    Each method of `SHOWN` has three rows. Where the study's pictures are not kept, a sheet that is there stays as it
    is. None where there is nothing to show.
    """
    if not (root / PICTURES).is_dir():
        return path if path.is_file() else None
    rows, labels = [], []
    for method in (method for method in plan.methods if method.name in SHOWN):
        columns = [_column(plan, root, method, worst) for worst in _worst(plan, journal, method, count)]
        if columns:
            rows += [list(row) for row in zip(*columns, strict=True)]
            labels += [method.name[:11], "alone", "fused"]
    if not rows:
        return None
    with atomic_file(path) as part:
        contact_sheet(rows, labels).save(part, format="png")
    return path


def _worst(plan: Plan, journal: Journal, method: Method, count: int) -> list[tuple[Key, int, int]]:
    """(fusion, number of the picture, subject), the lowest identity first; each subject once."""
    scored = []
    for seed in plan.seeds(method, count):
        key = plan.fused(method, seed, count)
        if key in journal and journal[key].seen:
            for number, seen in enumerate(journal[key].seen["singles"]):
                scored.append((seen.identity, seed, seen.wanted, number, key))
    found: dict[tuple[int, int], tuple[Key, int, int]] = {}
    for _, seed, wanted, number, key in sorted(scored, key=lambda item: item[0]):
        found.setdefault((seed, wanted), (key, number, wanted))
    return list(found.values())[:WORST]


def _column(plan: Plan, root: Path, method: Method, worst: tuple[Key, int, int]) -> list[Image.Image]:
    """The subject's photo, the concept alone with the same prompt and seed, and the fused picture."""
    key, number, wanted = worst
    subject = study_subjects(key.seed, plan.settings.slots)[wanted]
    folder = photos(subject, root / "photos", plan.settings.photos)
    each = len(plan.settings.prompts) * plan.settings.pictures
    alone = next((k for k in plan.alone(method, key.seed, key.place) if k.subject == wanted), None)
    pictures = [folder.read(folder.photos[0]), _picture(root, alone, number % each), _picture(root, key, number)]
    return [picture.convert("RGB").resize((CELL, CELL)) for picture in pictures]


def _picture(root: Path, key: Key | None, number: int) -> Image.Image:
    """A picture that a run kept; blank where there is none."""
    path = root / PICTURES / str(key) / f"singles-{number:03d}.png"
    if key is None or not path.is_file():
        return Image.new("RGB", (CELL, CELL), "white")
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _line(axes: Axes, points: dict[int, Estimate], label: str, number: int) -> None:
    """A line with its confidence intervals; lines of one colour differ in their dashes."""
    if not points:
        return
    halves = [0.0 if math.isinf(point.half) else point.half for point in points.values()]
    style = ("-", "--", ":")[number // 10 % 3]
    means = [point.mean for point in points.values()]
    axes.errorbar(list(points), means, halves, label=label, marker=".", elinewidth=0.6, capsize=2, linestyle=style)


def _save(figure: Figure, path: Path) -> Path:
    with atomic_file(path) as part:
        figure.savefig(part, format="png", dpi=110)
    return path
