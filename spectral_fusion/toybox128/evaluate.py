"""Measures a packed second edition on held-out scenes: `python -m spectral_fusion.toybox128.evaluate`."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

from spectral_fusion.toybox.data import to_tensor
from spectral_fusion.toybox.evaluate import contact_sheet, paint_prompts
from spectral_fusion.toybox128 import scorers
from spectral_fusion.toybox128.caption import caption
from spectral_fusion.toybox128.detector import Found
from spectral_fusion.toybox128.layout import arrange, hidden
from spectral_fusion.toybox128.paint import draw_scene
from spectral_fusion.toybox128.verdict import PROMPTS, held_out_scenes, reconstruction_psnr
from spectral_fusion.toybox128.world import COLOR_NAMES, Scene, identity, plain_thing

Table = dict[str, float]


def matched(scene: Scene, found: Sequence[Found]) -> list[Found | None]:
    """For each thing of a scene a thing of that class that was found, of the right colour where there is a choice."""
    left, chosen = list(found), []
    for placed in scene.things:
        alike = [each for each in left if each.name == placed.thing.name]
        best = max(alike, key=lambda each: each.color == placed.thing.color_name, default=None)
        if best:
            left.remove(best)
        chosen.append(best)
    return chosen


def obeyed(scene: Scene, found: Sequence[Found]) -> tuple[bool, bool, bool]:
    """Whether all classes are there, each in its colour, and from left to right as in the scene."""
    chosen = matched(scene, found)
    there = [each for each in chosen if each]
    if len(there) < len(chosen):
        return False, False, False
    colors = all(each.color == placed.thing.color_name for each, placed in zip(there, scene.things, strict=True))
    return True, colors, [each.x for each in there] == sorted(each.x for each in there)


def held_out_plain(count: int, things: int) -> list[Scene]:
    """Scenes of plain things that no training drew."""
    rng = random.Random(f"held out plain {things}")
    return [arrange([plain_thing(rng) for _ in range(things)], rng, deep=0.0) for _ in range(count)]


def obedience(images: Sequence[Image.Image], scenes: Sequence[Scene], folder: Path) -> Table:
    """Rates of pictures right in all, in classes, in colours, in places from left to right and in the background."""
    seen = scorers.find_things(images, folder)
    parts = torch.tensor([obeyed(scene, found) for scene, (_, found) in zip(scenes, seen, strict=True)]).float()
    places = [place == scene.background for scene, (place, _) in zip(scenes, seen, strict=True)]
    names = dict(zip(("class", "colour", "order"), parts.mean(0).tolist(), strict=True))
    return {"all": parts.prod(1).mean().item(), **names, "background": sum(places) / len(places)}


def marked_scenes(count: int) -> list[Scene]:
    """One thing each, with marks of which all have names."""
    rng = random.Random("held out marks")
    scenes: list[Scene] = []
    while len(scenes) < count:
        thing = identity(rng.randrange(1_000_000))
        named = thing.color in COLOR_NAMES and thing.marks and (thing.marks.pattern or thing.marks.accessories)
        if named:
            scenes.append(arrange([thing], rng))
    return scenes


def marks_there(images: Sequence[Image.Image], scenes: Sequence[Scene], folder: Path) -> Table:
    """How many of the patterns and accessories that the scenes' things have are found in the pictures."""
    patterns, worn = [], []
    for scene, (_, found) in zip(scenes, scorers.find_things(images, folder), strict=True):
        (best,), marks = matched(scene, found), scene.things[0].thing.marks
        assert marks
        if marks.pattern:
            patterns.append(bool(best and best.pattern == marks.pattern))
        worn += [bool(best and name in best.marks) for name, _ in marks.accessories]
    every = [*patterns, *worn]
    return {name: sum(hits) / len(hits) for name, hits in (("all", every), ("pattern", patterns), ("worn", worn))}


@torch.no_grad()
def through(vae: AutoencoderKL, images: Sequence[Image.Image]) -> list[Image.Image]:
    """The same pictures, encoded and decoded."""
    decoded = []
    for image in images:
        pixels = vae.decode(vae.encode(to_tensor(image)[None]).latent_dist.mean).sample[0].clamp(-1, 1)
        decoded.append(Image.fromarray(((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()))
    return decoded


def identity_kept(vae: AutoencoderKL, folder: Path, things: int, count: int = 48) -> float:
    """Mean cosine between the identities in photos and in what comes back from the autoencoder."""
    rng = random.Random(f"held out photos {things}")
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = arrange([identity(rng.randrange(1_000_000)) for _ in range(things)], rng)
        if hidden(scene.things) < 0.3:
            scenes.append(scene)
    photos = [draw_scene(scene) for scene in scenes]
    rows = [(i, placed.box) for i, scene in enumerate(scenes) for placed in scene.things]
    boxes = [box for _, box in rows]
    before, after = (
        scorers.embed_boxes([images[i] for i, _ in rows], boxes, folder) for images in (photos, through(vae, photos))
    )
    return (before * after).sum(-1).mean().item()


def identity_accuracy(folder: Path, identities: int = 32, queries: int = 4) -> float:
    """Nearest of `identities` unseen ones: a thing of a crowded scene against the mean of three single photos."""
    rng = random.Random("held out identities")
    things = [identity(number) for number in range(identities)]
    single = [arrange([thing], rng) for thing in things for _ in range(3)]
    embeds = scorers.embed_boxes([draw_scene(s) for s in single], [s.things[0].box for s in single], folder)
    references = embeds.view(identities, 3, -1).mean(1)
    right = 0
    for number, thing in enumerate(things):
        for _ in range(queries):
            scene = arrange([thing, identity(rng.randrange(10**6)), identity(rng.randrange(10**6))], rng)
            (seen,) = scorers.embed_boxes([draw_scene(scene)], [scene.things[0].box], folder)
            right += int((references @ seen).argmax() == number)
    return right / (identities * queries)


def seconds_a_picture(pipeline: StableDiffusionPipeline) -> float:
    """One 25-step picture with guidance, the best of three."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        paint_prompts(pipeline, ["a photo of a red cat on grass"], guidance=5.0, steps=25)
        times.append(time.perf_counter() - begin)
    return min(times)


def measure(
    pipeline: StableDiffusionPipeline, folder: Path, prompts: int, guidance: float, report: Callable[[str], None]
) -> Table:
    """Every row of the table that the folder has the scorers for."""
    table: Table = {}

    def add(key: str, value: float | Table) -> None:
        rows = {f"{key}, {name}": each for name, each in value.items()} if isinstance(value, dict) else {key: value}
        table.update(rows)
        report("\n".join(f"{name}: {each:.4g}" for name, each in rows.items()))

    for kind, marked in (("plain", 0.0), ("marked", 1.0)):
        add(f"autoencoder PSNR, {kind} (dB)", reconstruction_psnr(pipeline.vae, held_out_scenes(128, marked=marked)))
    if (folder / "scorers" / "identity").exists():
        add("identity encoder, nearest of 32", identity_accuracy(folder))
        for things in (1, 3):
            add(f"identity kept by the autoencoder, {things} a picture", identity_kept(pipeline.vae, folder, things))
    if (folder / "scorers" / "detector").exists():
        for things in (1, 2, 3):
            scenes = held_out_plain(prompts, things)
            add(f"detector on drawn scenes of {things}", obedience([draw_scene(s) for s in scenes], scenes, folder))
            images = paint_prompts(pipeline, [caption(s) for s in scenes], guidance=guidance, steps=25)
            add(f"{things} asked for", obedience(images, scenes, folder))
        scenes = marked_scenes(prompts)
        images = paint_prompts(pipeline, [caption(s, marks=True) for s in scenes], guidance=guidance, steps=25)
        add("marks found in drawn scenes", marks_there([draw_scene(s) for s in scenes], scenes, folder))
        add("marks asked for", marks_there(images, scenes, folder))
    return table


def main(
    out: Annotated[Path, typer.Option(help="Where the contact sheet and the table go.")] = Path(
        "out/toybox128-evaluate"
    ),
    weights: Annotated[Path | None, typer.Option(help="A packed folder; the installed one by default.")] = None,
    prompts: Annotated[int, typer.Option(help="Prompts of each kind.")] = 500,
    guidance: Annotated[float, typer.Option(help="guidance_scale of the stock pipeline.")] = 5.0,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    folder = weights or scorers.weights_folder()
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    table: Table = {"a picture (s)": seconds_a_picture(pipeline)}
    scenes = [scene for things in (1, 2, 3) for scene in held_out_plain(16, things)]
    texts = [*PROMPTS, *(caption(scene) for scene in scenes), *(caption(s, marks=True) for s in marked_scenes(8))]
    images = paint_prompts(pipeline, texts, guidance=guidance, steps=25)
    contact_sheet(images, texts, scale=1).save(out / "contact-sheet.png")
    table |= measure(pipeline, folder, prompts, guidance, print)
    (out / "table.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"contact sheet and table in {out}")


if __name__ == "__main__":
    typer.run(main)
