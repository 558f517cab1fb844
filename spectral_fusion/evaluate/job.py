"""The job: concepts and their photos in, scores of each way of fusing them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spectral_fusion.base.interface import Base
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.config import EvaluateConfig
from spectral_fusion.evaluate.finding import Detector, Finder
from spectral_fusion.evaluate.interference import energy_matrix, overlap_matrix
from spectral_fusion.evaluate.judge import Judge, mean_of
from spectral_fusion.evaluate.methods import Adapter, Method
from spectral_fusion.evaluate.painter import Painter, joined
from spectral_fusion.evaluate.result import Drawing, Evaluation, MethodResult, Scores, Setting, Subject
from spectral_fusion.evaluate.scorers import Scorers
from spectral_fusion.evaluate.similarity import Photos

OnProgress = Callable[[str], None]


def evaluate(
    base: Base,
    methods: Sequence[Method],
    folders: Sequence[ImageFolder],
    scorers: Scorers,
    config: EvaluateConfig | None = None,
    *,
    detector: Detector | Finder | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Evaluation:
    """Generate each concept alone, fused, and with the others, by each method; compare with its own photos.

    All methods are given the same prompts and seeds. The base is afterwards as before.

    Args:
        methods: ways of fusing the same subjects, in the same order.
        folders: the photos of each subject.
        detector: finds the subjects in the pictures, one that is missing counts 0; without it they are looked for where
            the base puts them.
        on_progress: told what is drawn next.

    Raises:
        InputError: fewer than two subjects, or other numbers of subjects and folders.
    """
    config = config or EvaluateConfig()
    adapters = methods[0].adapters
    check_count(len(adapters))
    if any(len(part) != len(adapters) for part in (folders, *(method.adapters for method in methods))):
        raise InputError(f"{len(adapters)} concepts need as many folders of photos, got {len(folders)}")
    photos, painter = Photos.of(folders, scorers), Painter(base, config)
    judge = Judge(painter, scorers, photos, detector)
    on_progress("the base, in plain words")
    base_alignment, base_drawings = _base(painter, judge, adapters)
    return Evaluation(
        subjects=tuple(_subjects(adapters, photos)),
        methods=tuple(_compare(methods, painter, judge, on_progress)),
        base_alignment=base_alignment,
        base_drawings=base_drawings,
        settings=config.to_json(),
    )


def check_count(concepts: int) -> None:
    """Raises InputError where there are fewer than two concepts."""
    if concepts < 2:
        raise InputError("an evaluation compares concepts with one another, got one; give two or more")


def _subjects(adapters: Sequence[Adapter], photos: Photos) -> list[Subject]:
    own = photos.own_similarity()
    return [
        Subject(adapter.name, adapter.trigger, adapter.class_word, own[number], photos.of_concept(number))
        for number, adapter in enumerate(adapters)
    ]


def _base(
    painter: Painter, judge: Judge, adapters: Sequence[Adapter]
) -> tuple[dict[Setting, list[float]], tuple[Drawing, ...]]:
    """How well the bare base follows the same prompts, classes instead of concepts in them."""
    words = [adapter.class_word for adapter in adapters]
    names = {adapter.class_word: adapter.name for adapter in adapters}
    single = {word: painter.plain("alone", word, names[word]) for word in words}
    crowd = painter.plain("together", joined(words))
    alone = mean_of([judge.alignment(single[word], word, names[word]) for word in words])
    together = judge.alignment(crowd, joined(words))
    alignment: dict[Setting, list[float]] = {
        "alone": alone,
        "fused": alone,
        "together": together,
        "regions": together,
        "places": together,
    }
    return alignment, (*(drawing for part in single.values() for drawing in part), *crowd)


@dataclass(frozen=True)
class _Unfused:
    """What methods with the same adapters have in common."""

    alone: Scores
    overlap: list[list[float]]
    energy: list[list[float]]
    drawings: list[Drawing]


def _compare(methods: Sequence[Method], painter: Painter, judge: Judge, on_progress: OnProgress) -> list[MethodResult]:
    results = []
    known: dict[tuple[int, ...], _Unfused] = {}
    for method in methods:
        key = tuple(map(id, method.adapters))
        if key not in known:
            on_progress(f"{method.name}: each concept alone")
            known[key] = _unfused(method, painter, judge)
        on_progress(f"{method.name}: all concepts")
        scores, drawings = _fused(method, painter, judge)
        shared = known[key]
        results.append(
            MethodResult(
                name=method.name,
                parameters=method.parameters,
                scores={"alone": shared.alone, **scores},
                overlap=shared.overlap,
                energy=shared.energy,
                drawings=(*shared.drawings, *drawings),
            )
        )
    return results


def _unfused(method: Method, painter: Painter, judge: Judge) -> _Unfused:
    adapters, drawings = method.adapters, []
    for number, adapter in enumerate(adapters):
        with method.on(painter.base, [number]):
            drawings.append(painter.single("alone", adapter))
    return _Unfused(
        alone=judge.singles(drawings, adapters),
        overlap=overlap_matrix(adapters),
        energy=energy_matrix(painter.base, adapters, painter.one),
        drawings=[drawing for part in drawings for drawing in part],
    )


def _fused(method: Method, painter: Painter, judge: Judge) -> tuple[dict[Setting, Scores], list[Drawing]]:
    adapters = method.adapters
    with method.on(painter.base, range(len(adapters))):
        singles = [painter.single("fused", adapter) for adapter in adapters]
        together = painter.crowd(adapters, regions=False)
        regions = painter.crowd(adapters, regions=True)
    scores: dict[Setting, Scores] = {
        "fused": judge.singles(singles, adapters),
        "together": judge.crowd(together, adapters),
        "regions": judge.crowd(regions, adapters),
    }
    drawings = [*(drawing for part in singles for drawing in part), *together, *regions]
    if method.placeable:
        placed = painter.placed(method.placeable)
        scores["places"] = judge.crowd(placed, adapters)
        drawings += placed
    return scores, drawings
