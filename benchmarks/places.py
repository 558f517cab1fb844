"""Subjects in one picture: fused, routed, bound to boxes, bound to places that the model finds.

python benchmarks/places.py run runs/places          # draws and judges, a JSON line for each set and way
python benchmarks/places.py report runs/places       # a table from these, and sheets of pictures
"""

import argparse
import itertools
import random
from pathlib import Path

from lines import Lines
from spectral_fusion.base.load import open_base
from spectral_fusion.concept import Library
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.evaluate import EvaluateConfig
from spectral_fusion.evaluate.finding import load_detector
from spectral_fusion.evaluate.gathering import WAYS, Gathering, alone, gather, summary
from spectral_fusion.evaluate.load import load_scorers
from spectral_fusion.evaluate.similarity import Photos

FIGURES = ("identity", "nearest", "confusion", "placed", "seconds")
PROMPTS = ("a photo of a {} on grass", "a photo of a {} in the snow")


def chosen_sets(names: list[str], sets: int) -> list[tuple[int, tuple[str, ...]]]:
    """Up to so many sets of two, three and four, drawn once for all; what is broken off has some of each."""
    source = random.Random(0)
    everything = {count: list(itertools.combinations(names, count)) for count in (2, 3, 4)}
    drawn = {count: source.sample(some, min(sets, len(some))) for count, some in everything.items()}
    return [(count, own[number]) for number in range(sets) for count, own in drawn.items() if number < len(own)]


def run(arguments: argparse.Namespace) -> None:
    base, library = open_base(arguments.base), Library(arguments.library)
    scorers, detector = load_scorers(base), load_detector(base, arguments.detector)
    folders = {name: ImageFolder.scan(Path(arguments.library) / name / "images") for name in arguments.concepts}
    concepts = {name: library.get(name) for name in arguments.concepts}
    config = EvaluateConfig(
        prompts=PROMPTS,
        seeds=arguments.seeds,
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance_scale,
    )
    out = Path(arguments.out)
    runs = runs_in(out)
    for name in arguments.concepts:
        if {"key": ["alone", name]} not in runs:
            photos = Photos.of([folders[name]], scorers)
            values = alone(base, concepts[name], photos, scorers, config, detector)
            runs.add({"key": ["alone", name], "values": values})
    for count, own in chosen_sets(arguments.concepts, arguments.sets):
        photos = Photos.of([folders[name] for name in own], scorers)
        for way in arguments.ways:
            if {"key": [way, *own]} in runs:
                continue
            found = gather(base, [concepts[name] for name in own], way, photos, scorers, config, detector)
            for place, picture in enumerate(found.pictures[:: arguments.seeds]):
                picture.image.save(out / f"{'-'.join(own)} {way.replace(', ', '-')} {place}.png")
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
    print(f"\nalone: {', '.join(f'{name} {value:.2f}' for name, value in alone_by_name.items())}")


def runs_in(out: Path) -> Lines:
    return Lines(out / "runs.jsonl", ("key",))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "report"])
    parser.add_argument("out")
    parser.add_argument("--base", default="toybox128")
    parser.add_argument("--library", default="concepts")
    parser.add_argument("--concepts", nargs="+", default=["tom", "kit", "rex", "bot", "fin", "dot", "eve", "sam"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--detector", help="an OWLv2 folder or hub id; by default the base's own, or places")
    parser.add_argument("--sets", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=3.0, help="what miniatures bear best")
    given = parser.parse_args()
    (run if given.verb == "run" else report)(given)
