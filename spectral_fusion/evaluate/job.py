"""The job: concepts and their photos in, scores of each way of fusing them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.boxes import crop_square, region_boxes, standing_boxes
from spectral_fusion.evaluate.config import SUBJECT, EvaluateConfig
from spectral_fusion.evaluate.interference import energy_matrix, overlap_matrix
from spectral_fusion.evaluate.methods import Adapter, Method
from spectral_fusion.evaluate.result import Drawing, Evaluation, MethodResult, Scores, Setting, Subject
from spectral_fusion.evaluate.scorers import Scorers
from spectral_fusion.evaluate.similarity import Photos, confusion
from spectral_fusion.generate import GenerateConfig, generate
from spectral_fusion.pipeline.regions import Region

OnProgress = Callable[[str], None]
CROWD_MARGIN = 0.15  # round each of several subjects: less, so that a crop does not show the neighbours


def evaluate(
    pipeline: StableDiffusionPipeline,
    methods: Sequence[Method],
    folders: Sequence[ImageFolder],
    scorers: Scorers,
    config: EvaluateConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Generate each concept alone, fused, and with the others, by each method; compare with its own photos.

    All methods are given the same prompts and seeds. The pipeline is afterwards as before.

    Args:
        methods: ways of fusing the same subjects, in the same order.
        folders: the photos of each subject.
        on_progress: told what is drawn next.

    Raises:
        InputError: fewer than two subjects, or other numbers of subjects and folders.
    """
    config = config or EvaluateConfig()
    subjects = methods[0].adapters
    if len(subjects) < 2:
        raise InputError("an evaluation compares concepts with one another, got one; give two or more")
    if any(len(part) != len(subjects) for part in (folders, *(method.adapters for method in methods))):
        raise InputError(f"{len(subjects)} concepts need as many folders of photos, got {len(folders)}")
    job = _Job(pipeline, config, scorers, Photos.of(folders, scorers), on_progress or (lambda _: None))
    base_alignment, base_drawings = job.base(subjects)
    return Evaluation(
        subjects=tuple(job.subjects(subjects)),
        methods=tuple(job.all_methods(methods)),
        base_alignment=base_alignment,
        base_drawings=base_drawings,
        settings=config.to_json(),
    )


@dataclass(frozen=True)
class _Job:
    pipeline: StableDiffusionPipeline
    config: EvaluateConfig
    scorers: Scorers
    photos: Photos
    on_progress: OnProgress

    def subjects(self, adapters: Sequence[Adapter]) -> list[Subject]:
        own = self.photos.own_similarity()
        return [
            Subject(a.name, a.trigger, a.class_word, own[number], self.photos.of_concept(number))
            for number, a in enumerate(adapters)
        ]

    def base(self, adapters: Sequence[Adapter]) -> tuple[dict[Setting, list[float]], tuple[Drawing, ...]]:
        """What the bare base makes of the prompts in plain words."""
        self.on_progress("base")
        words = [adapter.class_word for adapter in adapters]
        alone = [d for word in dict.fromkeys(words) for d in self.draw("alone", None, word)]
        together = self.draw("together", None, joined(words))
        by_word = {word: self.alignment([d for d in alone if d.prompt in self.prompts(word)], word) for word in words}
        single = _columns_mean([by_word[word] for word in words])
        crowd = self.alignment(together, joined(words))
        alignment: dict[Setting, list[float]] = {
            "alone": single,
            "fused": single,
            "together": crowd,
            "regions": crowd,
        }
        return alignment, (*alone, *together)

    def all_methods(self, methods: Sequence[Method]) -> list[MethodResult]:
        """Methods that share adapters differ only in how they are fused, so the rest is measured once."""
        results = []
        shared: dict[tuple[int, ...], tuple] = {}
        for method in methods:
            key = tuple(map(id, method.adapters))
            if key not in shared:
                shared[key] = (self.alone(method), overlap_matrix(method.adapters), self.energy(method.adapters))
            (alone, drawings), overlap, energy = shared[key]
            scores, more = self.fused(method)
            results.append(
                MethodResult(
                    name=method.name,
                    parameters=method.parameters,
                    scores={"alone": alone, **scores},
                    overlap=overlap,
                    energy=energy,
                    drawings=(*drawings, *more),
                )
            )
        return results

    def alone(self, method: Method) -> tuple[Scores, list[Drawing]]:
        self.on_progress(f"{method.name}: each concept alone")
        drawings = []
        for number, adapter in enumerate(method.adapters):
            with method.on(self.pipeline, [number]):
                drawings.append(self.draw("alone", adapter, subject_words(adapter)))
        return self.score_singles(drawings, method.adapters), [d for part in drawings for d in part]

    def fused(self, method: Method) -> tuple[dict[Setting, Scores], list[Drawing]]:
        self.on_progress(f"{method.name}: all concepts fused")
        adapters = method.adapters
        words = joined([subject_words(adapter) for adapter in adapters])
        with method.on(self.pipeline, range(len(adapters))):
            singles = [self.draw("fused", adapter, subject_words(adapter)) for adapter in adapters]
            together = self.draw("together", None, words)
            regions = self.draw("regions", None, words, regions_of(adapters))
        scores: dict[Setting, Scores] = {
            "fused": self.score_singles(singles, adapters),
            "together": self.score_crowd(together, adapters),
            "regions": self.score_crowd(regions, adapters),
        }
        return scores, [*(d for part in singles for d in part), *together, *regions]

    def energy(self, adapters: Sequence[Adapter]) -> list[list[float]]:
        self.on_progress("activation energies")
        return energy_matrix(
            self.pipeline,
            adapters,
            lambda adapter: generate(self.pipeline, self.settings(self.prompts(subject_words(adapter))[0], count=1)),
        )

    def prompts(self, subject: str) -> list[str]:
        return [prompt.replace(SUBJECT, subject) for prompt in self.config.prompts]

    def settings(self, prompt: str, count: int, regions: tuple[Region, ...] = ()) -> GenerateConfig:
        return GenerateConfig(
            prompt=prompt,
            regions=regions,
            seed=self.config.seed,
            num_images=count,
            num_inference_steps=self.config.num_inference_steps,
            guidance_scale=self.config.guidance_scale,
            sampler=self.config.sampler,
        )

    def draw(
        self, setting: Setting, adapter: Adapter | None, subject: str, regions: tuple[Region, ...] = ()
    ) -> list[Drawing]:
        """Every prompt from every seed, seeds of one prompt together."""
        return [
            Drawing(setting, adapter.name if adapter else None, prompt, picture.seed, picture.image)
            for prompt in self.prompts(subject)
            for picture in generate(self.pipeline, self.settings(prompt, self.config.seeds, regions))
        ]

    def score_singles(self, drawings: Sequence[Sequence[Drawing]], adapters: Sequence[Adapter]) -> Scores:
        """drawings: [concept][picture], one concept in each picture."""
        box = standing_boxes(1)[0]
        crops = [[crop_square(drawing.image, box) for drawing in part] for part in drawings]
        aligned = [self.alignment(part, a.class_word) for part, a in zip(drawings, adapters, strict=True)]
        seeds = [[drawing.seed for drawing in part] for part in drawings]
        return self.scores(crops, seeds, _columns_mean(aligned))

    def score_crowd(self, drawings: Sequence[Drawing], adapters: Sequence[Adapter]) -> Scores:
        """All concepts stand in each picture, left to right in the order of the prompt."""
        boxes = standing_boxes(len(adapters))
        crops = [[crop_square(drawing.image, box, CROWD_MARGIN) for drawing in drawings] for box in boxes]
        seeds = [[drawing.seed for drawing in drawings]] * len(adapters)
        aligned = self.alignment(drawings, joined([adapter.class_word for adapter in adapters]))
        return self.scores(crops, seeds, aligned)

    def scores(
        self, crops: Sequence[Sequence[Image.Image]], seeds: Sequence[Sequence[int]], alignment: list[float]
    ) -> Scores:
        """crops, seeds: [concept][picture]."""
        seen = [self.scorers.embed_identity(part) for part in crops]
        identity = [
            _by_seed(self.photos.similarity(part)[:, number], numbers)
            for number, (part, numbers) in enumerate(zip(seen, seeds, strict=True))
        ]
        wanted = torch.cat([torch.full((len(part),), number) for number, part in enumerate(seen)])
        nearest = torch.cat([self.photos.nearest(part) for part in seen])
        return Scores(identity, alignment, confusion(wanted, nearest, len(crops)))

    def alignment(self, drawings: Sequence[Drawing], words: str) -> list[float]:
        """[seed]: the mean cosine of each picture with its prompt in plain words, as `draw` orders pictures."""
        plain = [prompt for prompt in self.prompts(words) for _ in range(self.config.seeds)]
        distinct = list(dict.fromkeys(plain))
        cosines = self.scorers.text_alignment([drawing.image for drawing in drawings], distinct)
        own = torch.tensor([distinct.index(prompt) for prompt in plain])
        return _by_seed(cosines.gather(1, own[:, None])[:, 0], [drawing.seed for drawing in drawings])


def subject_words(adapter: Adapter) -> str:
    """How a prompt speaks of a concept: `<rex> dog`."""
    return f"{adapter.trigger} {adapter.class_word}"


def joined(subjects: Sequence[str]) -> str:
    """`dog, a cat and a robot`, to follow an "a"."""
    *first, last = subjects
    return f"{', a '.join(first)} and a {last}" if first else last


def regions_of(adapters: Sequence[Adapter]) -> tuple[Region, ...]:
    """One region for each concept, side by side."""
    boxes = region_boxes(len(adapters))
    return tuple(Region(f"a {subject_words(a)}", box) for a, box in zip(adapters, boxes, strict=True))


def _by_seed(values: Tensor, seeds: Sequence[int]) -> list[float]:
    """The mean of the values of each seed, seeds in order."""
    groups: dict[int, list[float]] = {}
    for value, seed in zip(values.tolist(), seeds, strict=True):
        groups.setdefault(seed, []).append(value)
    return [fmean(groups[seed]) for seed in sorted(groups)]


def _columns_mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(column) for column in zip(*rows, strict=True)]
