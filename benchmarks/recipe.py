"""A search for training settings on a bundled base: fresh identities, each trained, drawn, compared with photos.

python benchmarks/recipe.py run runs/recipe --base toybox128 --vary steps=240,480 --vary rank=8,16
python benchmarks/recipe.py report runs/recipe

One JSON line a training, so a run that was broken off goes on. Identities have numbers that no table and no training of
the base uses. `ceiling` is what the photos themselves keep through the autoencoder.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lines import Lines
from spectral_fusion.base.interface import Base
from spectral_fusion.base.load import open_base
from spectral_fusion.concept import Concept
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.evaluate import EvaluateConfig, Scorers, load_detector, load_scorers
from spectral_fusion.evaluate.gathering import interval, seen_alone
from spectral_fusion.evaluate.similarity import Photos
from spectral_fusion.spectral import Band
from spectral_fusion.toybox.data import to_tensor
from spectral_fusion.toybox.draw import TOYBOX, write_identity
from spectral_fusion.toybox128.draw import TOYBOX128
from spectral_fusion.training import TrainConfig
from spectral_fusion.training.job import resolve
from spectral_fusion.training.single import train

FIRST = 700_000  # below the numbers that toybox128's training draws, above those of any table
PROMPTS = ("a photo of a {} on grass", "a photo of a {} in the snow", "a {} in a room", "a {} at night")
WORLDS = {"toybox": TOYBOX, "toybox128": TOYBOX128}


def settings_of(vary: list[str]) -> list[dict]:
    """Every combination of `name=value,value` as settings; values are JSON, or words joined by `+`."""
    names = [each.partition("=")[0] for each in vary]
    values = [[_value(text) for text in each.partition("=")[2].split(",")] for each in vary]
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text.split("+") if "+" in text else text


@torch.no_grad()
def ceiling(base: Base, photos: Photos, scorers: Scorers) -> float:
    """Mean cosine of the photos with themselves after the autoencoder."""
    posterior = base.encode(torch.stack([to_tensor(image) for image in photos.pictures]))
    back = base.decode(posterior.sample(torch.zeros_like(posterior.mean)))
    seen = scorers.embed_identity(back)
    return float((seen @ photos.embeddings.T).mean())


def run(given: argparse.Namespace) -> None:
    base = open_base(given.base)
    scorers, detector, world = load_scorers(base), load_detector(base), WORLDS[given.base]
    out = Path(given.out)
    runs = runs_in(out)
    shown = EvaluateConfig(prompts=PROMPTS, seeds=given.seeds, guidance_scale=given.guidance_scale)
    things = [world.identity(FIRST + number) for number in range(given.identities)]
    folders = [out / "images" / f"{given.base}-{number}" for number in range(given.identities)]
    for number, (thing, folder) in enumerate(zip(things, folders, strict=True)):
        if not folder.is_dir():
            write_identity(thing, folder, count=6, seed=FIRST + number, world=world)
    everyone = Photos.of([ImageFolder.scan(folder) for folder in folders], scorers)
    for settings in settings_of(given.vary):
        for number in range(given.first, given.identities):
            key = [given.base, number, settings]
            if {"key": key} in runs:
                continue
            photos = Photos.of([ImageFolder.scan(folders[number])], scorers)
            concept, seconds = trained(base, folders[number], things[number].name, settings)
            seen = seen_alone(base, concept, photos, scorers, shown, detector)
            values = photos.similarity(seen)[:, 0].tolist()
            record = {"key": key, "class": things[number].name, "identity": values, "seconds": seconds}
            record |= {"ceiling": ceiling(base, photos, scorers), "own": photos.own_similarity()[0]}
            record |= {"nearest": everyone.nearest(seen).tolist(), "of": given.identities}
            runs.add(record)
            print(f"{key}: {fmean(values):.3f} of {record['ceiling']:.3f}, {seconds:.0f} s", flush=True)


def trained(base: Base, folder: Path, class_word: str, settings: dict) -> tuple[Concept, float]:
    """A concept in the first band of the preset's side, and the seconds that its training took."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    config = resolve(
        TrainConfig(name="subject", class_word=class_word, base=base.name, with_concepts=(), **given), base
    )
    begin = time.perf_counter()
    concept = train(base, ImageFolder.scan(folder), config, Band(0, config.rank, config.band_side))
    return concept, time.perf_counter() - begin


def report(given: argparse.Namespace) -> None:
    rows: dict[str, list[dict]] = {}
    for line in runs_in(Path(given.out)):
        rows.setdefault(json.dumps(line["key"][2]), []).append(line)
    print("| settings | identities | identity | over the ceiling | worst | nearest photo right | s a training |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for settings, records in rows.items():
        means = [fmean(record["identity"]) for record in records]
        over = [mean / record["ceiling"] for mean, record in zip(means, records, strict=True)]
        said = ", ".join(f"{name} {value}" for name, value in json.loads(settings).items()) or "as shipped"
        mean, half = interval(means)
        seconds = fmean(record["seconds"] for record in records)
        right = [nearest == record["key"][1] for record in records for nearest in record["nearest"]]
        spread = interval(over)[1]
        print(
            f"| {said} | {len(means)} | {mean:.2f} ± {half:.2f} | {fmean(over):.3f} ± {spread:.3f} | {min(over):.2f} "
            f"| {100 * fmean(right):.1f} % of {records[0]['of']} | {seconds:.0f} |"
        )


def runs_in(out: Path) -> Lines:
    return Lines(out / "runs.jsonl", ("key",))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "report"])
    parser.add_argument("out")
    parser.add_argument("--base", default="toybox128", choices=list(WORLDS))
    parser.add_argument("--identities", type=int, default=4)
    parser.add_argument("--first", type=int, default=0, help="so many identities are left out, for another process")
    parser.add_argument("--vary", action="append", default=[], metavar="NAME=VALUE,VALUE")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    chosen = parser.parse_args()
    (run if chosen.verb == "run" else report)(chosen)
