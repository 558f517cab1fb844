"""Subjects in one set of weights, by every way of merging that needs no training: one at a time, and in one picture.

python benchmarks/merging.py train runs/merging      # the shipped subjects as LoRAs, settings as their concepts had
python benchmarks/merging.py run runs/merging        # merges, draws and judges, a JSON line for each set and way
python benchmarks/merging.py report runs/merging     # tables from these

Sets, prompts and judge are those of `places.py`, so that its tables and these stand side by side.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lines import Lines
from places import FIGURES, PROMPTS, chosen_sets
from spectral_fusion.base.interface import Base
from spectral_fusion.base.load import open_base
from spectral_fusion.concept import Concept, Library
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.evaluate import EvaluateConfig
from spectral_fusion.evaluate.config import SUBJECT
from spectral_fusion.evaluate.finding import Detector, Finder, load_detector
from spectral_fusion.evaluate.gathering import Gathering, interval, judged, summary
from spectral_fusion.evaluate.load import load_scorers
from spectral_fusion.evaluate.lora import Lora, train_loras
from spectral_fusion.evaluate.painter import joined, subject_words
from spectral_fusion.evaluate.scorers import Scorers
from spectral_fusion.evaluate.similarity import Photos
from spectral_fusion.generation import GenerateConfig, Picture, generate
from study.methods.applied import Fuse, applying
from study.methods.least_squares import exact_least_squares_delta, gradient_fusion
from study.methods.merging import averaged, dare_merged, product_fuse, summed, ties_merged
from study.methods.routing import routed_loras
from study.settings import Settings
from study.training import Adapter


def ways(steps: int) -> dict[str, tuple[type, Fuse]]:
    """Of concepts and of LoRAs: what merges them."""
    settings = Settings(prompts=PROMPTS, fusion_inference_steps=steps, guidance_scale=3.0)
    data = applying(gradient_fusion(settings, exact_least_squares_delta))
    return {
        "spectral, sum": (Concept, product_fuse("sum")),
        "spectral, mean": (Concept, product_fuse("mean")),
        "spectral, routed": (Concept, product_fuse("routed")),
        "spectral, gradient fusion": (Concept, data),
        "LoRA, sum": (Lora, applying(summed)),
        "LoRA, mean": (Lora, applying(averaged)),
        "LoRA, ties": (Lora, applying(ties_merged)),
        "LoRA, dare_linear": (Lora, applying(dare_merged)),
        "LoRA, routed": (Lora, applying(routed_loras)),
        "LoRA, gradient fusion": (Lora, data),
    }


@dataclass(frozen=True)
class Bench:
    """What all runs share. adapters: name -> the subject as a concept and as a LoRA."""

    base: Base
    adapters: Mapping[type, Mapping[str, Adapter]]
    folders: Mapping[str, ImageFolder]
    scorers: Scorers
    detector: Detector | Finder | None
    config: EvaluateConfig

    def judged(
        self, way: str, fused: Sequence[Adapter], shown: Sequence[Adapter], fuse: Fuse
    ) -> tuple[Gathering, float]:
        """Pictures that show some of what is fused, judged; and the seconds that fusing took."""
        began = time.perf_counter()
        with fuse(self.base, fused):
            merged = time.perf_counter()
            pictures = self._draw(joined([subject_words(adapter) for adapter in shown]))
        seconds = (time.perf_counter() - merged) / len(pictures)
        photos = Photos.of([self.folders[adapter.name] for adapter in shown], self.scorers)
        places = self.base.places(len(shown))
        found = judged(way, pictures, seconds, shown, photos, places, self.scorers, self.detector)
        return found, merged - began

    def _draw(self, words: str) -> list[Picture]:
        return [
            picture
            for template in self.config.prompts
            for picture in generate(
                self.base,
                GenerateConfig(
                    template.replace(SUBJECT, words),
                    num_inference_steps=self.config.num_inference_steps,
                    guidance_scale=self.config.guidance_scale,
                    seed=self.config.seed,
                    num_images=self.config.seeds,
                ),
            )
        ]


def opened(given: argparse.Namespace) -> Bench:
    base, library = open_base(given.base), Library(given.library)
    folders = {name: ImageFolder.scan(Path(given.library) / name / "images") for name in given.concepts}
    concepts: dict[str, Adapter] = {name: library.get(name) for name in given.concepts}
    loras: dict[str, Adapter] = {}
    for name in given.concepts:
        path = Path(given.out) / "loras" / f"{name}.safetensors"
        if path.is_file():
            loras[name] = Lora.load(path)
    config = EvaluateConfig(
        prompts=PROMPTS, seeds=given.seeds, num_inference_steps=given.steps, guidance_scale=given.guidance_scale
    )
    return Bench(base, {Concept: concepts, Lora: loras}, folders, load_scorers(base), load_detector(base), config)


def train(given: argparse.Namespace) -> None:
    bench = opened(given)
    concepts = [each for each in bench.adapters[Concept].values() if isinstance(each, Concept)]
    train_loras(
        concepts, list(bench.folders.values()), Path(given.out) / "loras", base=bench.base,
        on_progress=lambda text: print(text, flush=True) if text.endswith(("with", "00", "50")) else None,
    )  # fmt: skip


def run(given: argparse.Namespace) -> None:
    bench, out = opened(given), Path(given.out)
    runs = runs_in(out)
    for way, (kind, fuse) in ways(given.fusion_steps).items():
        own = bench.adapters[kind]
        if way not in given.ways or len(own) < len(given.concepts):
            continue
        for name in given.concepts:
            _record(bench, runs, out, way, [own[name]], own[name], fuse)
        for count in given.fused:
            for first in range(0, len(own), 1 if count < len(own) else len(own)):
                members = [own[given.concepts[(first + step) % len(own)]] for step in range(count)]
                for shown in members:
                    _record(bench, runs, out, way, members, shown, fuse)
        for count, names in chosen_sets(given.concepts, given.sets):
            if count in given.together:
                _record(bench, runs, out, way, [own[name] for name in names], None, fuse)


def _record(
    bench: Bench, runs: Lines, out: Path, way: str, fused: Sequence[Adapter], shown: Adapter | None, fuse: Fuse
) -> None:
    """Judge pictures of one of those that are fused, or of all of them together."""
    names = [adapter.name for adapter in fused]
    key = [way, *names, "|", shown.name if shown else "all"]
    if {"key": key} in runs:
        return
    found, merging = bench.judged(way, fused, [shown] if shown else fused, fuse)
    if shown is None:
        for number, picture in enumerate(found.pictures[:: bench.config.seeds]):
            picture.image.save(out / f"{'-'.join(names)} {way.replace(', ', '-')} {number}.png")
    runs.add({"key": key, "merging": merging, **{name: getattr(found, name) for name in FIGURES}})
    print(f"{key}: {interval([value for row in found.identity for value in row])[0]:.2f}", flush=True)


def report(given: argparse.Namespace) -> None:
    """One row for each way: alone, one at a time of so many, and so many in one picture."""
    records = list(runs_in(Path(given.out)))
    print("| way | alone | one at a time, of | over alone | nearest photo right | in one picture | over alone | "
          "all right | s to merge |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")  # fmt: skip
    for way in ways(1):
        own = [record for record in records if record["key"][0] == way]
        alone = {r["key"][1]: r for r in own if len(r["key"]) == 4}
        if alone:
            _report_way(way, own, {name: _mean(record) for name, record in alone.items()}, given)


def _report_way(way: str, own: list[dict], alone: Mapping[str, float], given: argparse.Namespace) -> None:
    mean = sum(alone.values()) / len(alone)
    for count in dict.fromkeys([*given.together, *given.fused]):
        of_count = [record for record in own if len(record["key"]) == count + 3 and count > 1]
        singles = [record for record in of_count if record["key"][-1] != "all"]
        crowds = [record for record in of_count if record["key"][-1] == "all"]
        cells = [way, f"{mean:.2f}", f"{count}"]
        cells += _singles(singles, alone) if singles else ["", ""]
        cells += [f"{count}", *_crowds(crowds, alone)] if crowds else ["", "", ""]
        if of_count:
            print(f"| {' | '.join(cells)} | {max(record['merging'] for record in of_count):.1f} |")


def _singles(records: list[dict], alone: Mapping[str, float]) -> list[str]:
    over = [value / alone[r["key"][-1]] for r in records for row in r["identity"] for value in row]
    right = [float(value) for r in records for row in r["nearest"] for value in row]
    (a, b), (c, d) = interval(over), interval(right)
    return [f"{a:.2f} ± {b:.2f}", f"{100 * c:.0f} ± {100 * d:.0f} %"]


def _crowds(records: list[dict], alone: Mapping[str, float]) -> list[str]:
    found = [
        Gathering(r["key"][0], tuple(r["key"][1:-2]), **{key: r[key] for key in FIGURES}, pictures=[]) for r in records
    ]
    figures = summary(found, alone)
    (a, b), (c, d) = figures["over alone"], figures["success"]
    return [f"{a:.2f} ± {b:.2f}", f"{100 * c:.0f} ± {100 * d:.0f} %"]


def _mean(record: dict) -> float:
    return interval([value for row in record["identity"] for value in row])[0]


def runs_in(out: Path) -> Lines:
    return Lines(out / "runs.jsonl", ("key",))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["train", "run", "report"])
    parser.add_argument("out")
    parser.add_argument("--base", default="toybox128")
    parser.add_argument("--library", default="concepts")
    parser.add_argument("--concepts", nargs="+", default=["tom", "kit", "rex", "bot", "fin", "dot", "eve", "sam"])
    parser.add_argument("--ways", nargs="+", default=list(ways(1)), choices=list(ways(1)))
    parser.add_argument("--fused", nargs="*", type=int, default=[8], help="how many to fuse, drawn one at a time")
    parser.add_argument("--together", nargs="*", type=int, default=[2, 3, 4], help="how many in a picture")
    parser.add_argument("--sets", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=3.0, help="what miniatures bear best")
    parser.add_argument("--fusion-steps", type=int, default=10, help="of the pictures that gradient fusion looks at")
    asked = parser.parse_args()
    {"train": train, "run": run, "report": report}[asked.verb](asked)
