"""Subjects in one picture: fused, routed, bound to boxes, bound to places that the model finds.

python benchmarks/places.py run runs/places          # draws and judges, a JSON line for each set and way
python benchmarks/places.py run runs/places --fused 3 8     # and one at a time, from weights that hold so many
python benchmarks/places.py run runs/loras --loras runs/merging/loras --ways boxes "boxes, composite"    # LoRAs instead
python benchmarks/places.py report runs/places       # a table from these
python benchmarks/places.py sheet runs/places --ways sum boxes "boxes, composite"    # pictures: two, three, four.webp
"""

import argparse
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lines import Lines
from spectral_fusion.base.interface import Base
from spectral_fusion.base.load import open_base
from spectral_fusion.concept import Concept, Library
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.evaluate import EvaluateConfig
from spectral_fusion.evaluate.finding import Detector, Finder, load_detector, seen_subjects
from spectral_fusion.evaluate.gathering import (
    ALONE_MARGIN,
    WAYS,
    Gathering,
    gather,
    interval,
    portraits,
    seen_alone,
    summary,
)
from spectral_fusion.evaluate.load import load_scorers
from spectral_fusion.evaluate.lora import Lora
from spectral_fusion.evaluate.painter import subject_words
from spectral_fusion.evaluate.scorers import Scorers
from spectral_fusion.evaluate.similarity import Photos
from spectral_fusion.fusion import Reduce, fuse
from spectral_fusion.generation.bound import Placeable

REDUCES: tuple[Reduce, ...] = ("sum", "routed")
FIGURES = ("identity", "nearest", "confusion", "placed", "seconds")
PROMPTS = ("a photo of a {} on grass", "a photo of a {} in the snow")


def chosen_sets(names: list[str], sets: int) -> list[tuple[int, tuple[str, ...]]]:
    """Up to so many sets of two, three and four, drawn once for all; what is broken off has some of each."""
    source = random.Random(0)
    everything = {count: list(itertools.combinations(names, count)) for count in (2, 3, 4)}
    drawn = {count: source.sample(some, min(sets, len(some))) for count, some in everything.items()}
    return [(count, own[number]) for number in range(sets) for count, own in drawn.items() if number < len(own)]


@dataclass(frozen=True)
class Judge:
    """Draws one subject a picture and compares it with the photos of all of them."""

    base: Base
    concepts: tuple[Concept, ...]
    photos: Photos
    scorers: Scorers
    detector: Detector | Finder | None
    config: EvaluateConfig
    out: Path

    def record(self, key: list, number: int, words: str, on: Mapping[Placeable, float] | None = None) -> dict:
        """values: cosines with the own photos; nearest: whether the nearest photo is an own one.

        Args:
            words: what prompts call the subject.
            on: concepts that are put on for the picture; None for the base as it is.
        """
        images = portraits(self.base, words, self.config, on)
        images[0].save(self.out / f"{' '.join(map(str, key))}.png")
        own, places = self.concepts[number].class_word, self.base.places(1)
        (seen,) = seen_subjects(images, [own], [number], self.photos, places, self.scorers, self.detector, ALONE_MARGIN)
        values = self.photos.similarity(seen)[:, number].tolist()
        nearest = (self.photos.nearest(seen) == number).tolist()
        return {"key": key, "values": values, "nearest": nearest}


def run_one_at_a_time(judge: Judge, counts: list[int], runs: Lines) -> None:
    """Each subject in pictures of its own: without its concept, with it alone, and from weights that hold `counts`."""
    for number, concept in enumerate(judge.concepts):
        words = subject_words(concept)
        if {"key": ["without", concept.name]} not in runs:
            runs.add(judge.record(["without", concept.name], number, concept.class_word))
        if {"key": ["with", concept.name]} not in runs:
            runs.add(judge.record(["with", concept.name], number, words, {concept: 1.0}))
    total = len(judge.concepts)
    for count, reduce in itertools.product(counts, REDUCES):
        # Neighbours in turn, so that each concept is fused as often as any other.
        for first in range(0, total, 1 if count < total else total):
            members = [(first + step) % total for step in range(count)]
            key = ["fused", reduce, count, judge.concepts[first].name]
            if {"key": [*key, judge.concepts[members[-1]].name]} in runs:
                continue
            fusion = fuse(judge.base, dict.fromkeys((judge.concepts[m] for m in members), 1.0), reduce=reduce)
            try:
                for member in members:
                    concept = judge.concepts[member]
                    runs.add(judge.record([*key, concept.name], member, subject_words(concept)))
            finally:
                fusion.undo()


def run(arguments: argparse.Namespace) -> None:
    base, library = open_base(arguments.base), Library(arguments.library)
    scorers, detector = load_scorers(base), load_detector(base, arguments.detector)
    folders = {name: ImageFolder.scan(Path(arguments.library) / name / "images") for name in arguments.concepts}
    concepts: dict[str, Any] = {
        name: Lora.load(arguments.loras / f"{name}.safetensors") if arguments.loras else library.get(name)
        for name in arguments.concepts
    }
    config = EvaluateConfig(
        prompts=PROMPTS,
        seeds=arguments.seeds,
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance_scale,
    )
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    runs = runs_in(out)
    if arguments.fused:
        every = Photos.of(list(folders.values()), scorers)
        judge = Judge(base, tuple(concepts.values()), every, scorers, detector, config, out)
        run_one_at_a_time(judge, arguments.fused, runs)
    for name in arguments.concepts:
        if {"key": ["alone", name]} not in runs:
            photos = Photos.of([folders[name]], scorers)
            seen = seen_alone(base, concepts[name], photos, scorers, config, detector)
            runs.add({"key": ["alone", name], "values": photos.similarity(seen)[:, 0].tolist()})
    for count, own in chosen_sets(arguments.concepts, arguments.sets):
        if count not in arguments.together:
            continue
        photos = Photos.of([folders[name] for name in own], scorers)
        for way in arguments.ways:
            if {"key": [way, *own]} in runs:
                continue
            found = gather(base, [concepts[name] for name in own], way, photos, scorers, config, detector)
            for place, picture in enumerate(found.pictures[:: arguments.seeds]):
                picture.image.save(picture_file(out, own, way, place))
            record = {key: getattr(found, key) for key in FIGURES}
            runs.add({"key": [way, *own], "count": count, **record})


def report(arguments: argparse.Namespace) -> None:
    records = list(runs_in(Path(arguments.out)))
    alone_by_name = {r["key"][1]: sum(r["values"]) / len(r["values"]) for r in records if r["key"][0] == "alone"}
    print(
        "| in one picture | way | identity | over alone | nearest photo right | all right | confusion | s a picture |"
    )
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for count in (2, 3, 4):
        for way in WAYS:
            own = [r for r in records if r["key"][0] == way and r["count"] == count]
            if not own:
                continue
            found = [Gathering(way, tuple(r["key"][1:]), **{key: r[key] for key in FIGURES}, pictures=[]) for r in own]
            figures = summary(found, alone_by_name)
            cells = [f"{figures[k][0]:.2f} ± {figures[k][1]:.2f}" for k in ("identity", "over alone")]
            cells += [f"{100 * figures[k][0]:.0f} ± {100 * figures[k][1]:.0f} %" for k in ("nearest right", "success")]
            print(f"| {count} | {way} | {' | '.join(cells)} | {figures['confusion']:+.2f} | {figures['seconds']:.2f} |")
    report_one_at_a_time(records)
    print(f"\nalone: {', '.join(f'{name} {value:.2f}' for name, value in alone_by_name.items())}")


def picture_file(out: Path, own: tuple[str, ...], way: str, place: int) -> Path:
    """Where the first picture of a set, by a way and to one prompt, is kept."""
    return out / f"{'-'.join(own)} {way.replace(', ', '-')} {place}.png"


def sheet(arguments: argparse.Namespace) -> None:
    """One sheet a size in the folder: a row a way, the first picture of each prompt of each set, none left out."""
    out, step = Path(arguments.out), 132
    for count, word in ((2, "two"), (3, "three"), (4, "four")):
        sets = [own for size, own in chosen_sets(arguments.concepts, arguments.sets) if size == count]
        columns = [(own, place) for own in sets for place in range(len(PROMPTS))]
        whole = Image.new("RGB", (len(columns) * step - 4, len(arguments.ways) * step - 4), "white")
        for y, way in enumerate(arguments.ways):
            for x, (own, place) in enumerate(columns):
                with Image.open(picture_file(out, own, way, place)) as picture:
                    whole.paste(picture, (x * step, y * step))
        whole.save(out / f"{word}.webp", quality=88)


def report_one_at_a_time(records: list[dict]) -> None:
    """Identity of subjects that have a picture to themselves, by what the weights hold."""
    rows: dict[tuple, list[dict]] = {}
    for record in records:
        if record["key"][0] in ("without", "with", "fused"):
            rows.setdefault(tuple(record["key"][:-2] if record["key"][0] == "fused" else record["key"][:1]), []).append(
                record
            )
    if not rows:
        return
    print("\n| one in a picture | identity | nearest photo right | pictures |\n| --- | ---: | ---: | ---: |")
    for key, own in rows.items():
        values = [value for record in own for value in record["values"]]
        right = [float(value) for record in own for value in record["nearest"]]
        mean, half = interval(values)
        share, either = interval(right)
        said = f"{key[2]} fused, {key[1]}" if key[0] == "fused" else f"{key[0]} its concept"
        print(f"| {said} | {mean:.2f} ± {half:.2f} | {100 * share:.0f} ± {100 * either:.0f} % | {len(values)} |")


def runs_in(out: Path) -> Lines:
    return Lines(out / "runs.jsonl", ("key",))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "report", "sheet"])
    parser.add_argument("out")
    parser.add_argument("--base", default="toybox128")
    parser.add_argument("--library", default="concepts")
    parser.add_argument("--concepts", nargs="+", default=["tom", "kit", "rex", "bot", "fin", "dot", "eve", "sam"])
    parser.add_argument("--loras", type=Path, help="folder of LoRAs of the same subjects, as merging.py trains them")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--detector", help="an OWLv2 folder or hub id; by default the base's own, or places")
    parser.add_argument("--fused", nargs="*", type=int, default=[], help="how many to fuse, drawn one at a time")
    parser.add_argument("--together", nargs="+", type=int, default=[2, 3, 4], help="how many in a picture")
    parser.add_argument("--sets", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=3.0, help="what miniatures bear best")
    given = parser.parse_args()
    {"run": run, "report": report, "sheet": sheet}[given.verb](given)
