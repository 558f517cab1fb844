"""Measures toybox on held-out scenes: `python -m spectral_fusion.toybox.evaluate [--out DIR]`."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from spectral_fusion.toybox import scorers
from spectral_fusion.toybox.data import crop, labels, to_tensor
from spectral_fusion.toybox.paint import draw_scene
from spectral_fusion.toybox.world import Scene, arrange, caption, identity, plain_thing, random_scene

HELD_OUT_SEED = 90_000  # training numbers its examples "<stage> <seed> <index>"; these generators are others
BATCH = 50


def held_out_scenes(count: int, things: int | None = None, *, marked: float = 0.0, seed: int = 0) -> list[Scene]:
    """Scenes that no training drew. `things`: how many in each, or mixed if None."""
    rng = random.Random(f"held out {HELD_OUT_SEED + seed} {things} {marked}")
    if things is None:
        return [random_scene(rng, marked=marked) for _ in range(count)]
    return [arrange([plain_thing(rng) for _ in range(things)], rng) for _ in range(count)]


@torch.no_grad()
def reconstruction_psnr(pipeline: StableDiffusionPipeline, scenes: Sequence[Scene]) -> float:
    """Peak signal-to-noise ratio of the autoencoder in dB, over all pixels of all scenes."""
    errors = []
    for scene in scenes:
        pixels = to_tensor(draw_scene(scene))[None]
        decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        errors.append(((decoded - pixels) / 2).square().mean())
    return (-10 * torch.stack(errors).mean().log10()).item()


def paint_prompts(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], *, guidance: float, steps: int = 20, seed: int = 0
) -> list[Image.Image]:
    """One picture a prompt by the stock pipeline, picture `i` from seed `seed * 100000 + i`."""
    pipeline.set_progress_bar_config(disable=True)
    images: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        batch = list(prompts[start : start + BATCH])
        generators = [torch.Generator().manual_seed(seed * 100_000 + start + i) for i in range(len(batch))]
        out = pipeline(batch, num_inference_steps=steps, guidance_scale=guidance, generator=generators)
        images += out.images
    return images


def obeyed(images: Sequence[Image.Image], scenes: Sequence[Scene]) -> torch.Tensor:
    """(n, 3) booleans: are all classes right, all colours, the background; judged by the classifier."""
    wanted = torch.stack([labels(scene) for scene in scenes])
    seen = torch.cat([scorers.classify(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
    right = seen == wanted
    # A slot that should be empty is not asked about: only the named things are judged.
    right[:, :6] |= wanted[:, :6] == 0
    return torch.stack([right[:, :3].all(1), right[:, 3:6].all(1), right[:, 6]], dim=1)


def classifier_accuracy(count: int = 1000) -> float:
    """How often the classifier is right in all of class, colour and background, on drawn one- and two-object scenes."""
    scenes = held_out_scenes(count // 2, 1, seed=1) + held_out_scenes(count // 2, 2, seed=1)
    return obeyed([draw_scene(scene) for scene in scenes], scenes).all(1).float().mean().item()


def identity_accuracy(identities: int = 32, queries: int = 8) -> float:
    """Nearest of `identities` unseen ones: a crop from a crowded scene against the mean of three single photos."""
    rng = random.Random(f"identities {HELD_OUT_SEED}")
    things = [identity(number) for number in range(identities)]
    references = []
    for thing in things:
        photos = [draw_scene(arrange([thing], rng)) for _ in range(3)]
        references.append(scorers.embed_identity(photos).mean(0))
    right = 0
    for number, thing in enumerate(things):
        views = []
        for _ in range(queries):
            scene = arrange([thing, plain_thing(rng)], rng)
            views.append(crop(draw_scene(scene), scene.things[0]))
        nearest = (scorers.embed_identity(views) @ torch.stack(references).T).argmax(1)
        right += int((nearest == number).sum())
    return right / (identities * queries)


def text_accuracy(rounds: int = 16) -> float:
    """Right caption out of 64 different ones."""
    rng = random.Random(f"captions {HELD_OUT_SEED}")
    right = 0
    for _ in range(rounds):
        scenes = {caption(scene): scene for scene in (random_scene(rng) for _ in range(80))}
        chosen = list(scenes)[:64]
        cosines = scorers.text_alignment([draw_scene(scenes[text]) for text in chosen], chosen)
        right += int((cosines.argmax(1) == torch.arange(64)).sum())
    return right / (64 * rounds)


def seconds_a_picture(pipeline: StableDiffusionPipeline) -> float:
    """One 20-step picture with guidance, the best of three."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        paint_prompts(pipeline, ["a photo of a red cat on grass"], guidance=5.0)
        times.append(time.perf_counter() - begin)
    return min(times)


def contact_sheet(images: Sequence[Image.Image], texts: Sequence[str], columns: int = 8, scale: int = 2) -> Image.Image:
    """Pictures of one size in rows with their prompts below."""
    side = images[0].width * scale
    width, height = side + 12, side + 34
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        x, y = i % columns * width + 6, i // columns * height + 6
        sheet.paste(image.resize((side,) * 2, Image.Resampling.NEAREST), (x, y))
        words, line = text.replace("a photo of ", ""), 22
        for row in range(2):
            draw.text((x, y + side + 1 + 12 * row), words[row * line : (row + 1) * line], fill="black")
    return sheet


def measure(
    pipeline: StableDiffusionPipeline, prompts: int, seeds: int, guidance: float, report: Callable[[str], None]
) -> dict[str, float | list[float]]:
    """Every row of the table. Rates are parts of one; `one object` and `two objects` hold one value a sampling seed."""
    table: dict[str, float | list[float]] = {}

    def add(key: str, value: float | list[float]) -> None:
        table[key] = value
        report(f"{key}: {value}")

    add("autoencoder PSNR, plain (dB)", reconstruction_psnr(pipeline, held_out_scenes(256)))
    add("autoencoder PSNR, marked (dB)", reconstruction_psnr(pipeline, held_out_scenes(256, marked=1.0)))
    add("classifier, drawn scenes", classifier_accuracy())
    for things, key in ((1, "one object"), (2, "two objects")):
        scenes = held_out_scenes(prompts, things)
        texts = [caption(scene) for scene in scenes]
        parts = []
        for seed in range(seeds):
            parts.append(obeyed(paint_prompts(pipeline, texts, guidance=guidance, seed=seed), scenes).float())
        wanted = [0, 1, 2] if things == 1 else [0, 1]
        add(key, [part[:, wanted].all(1).float().mean().item() for part in parts])
        for column, name in enumerate(("class", "colour", "background")):
            add(f"{key}, {name}", [part[:, column].mean().item() for part in parts])
    add("identity encoder, nearest of 32", identity_accuracy())
    add("image-text scorer, caption of 64", text_accuracy())
    return table


def main(
    out: Annotated[Path, typer.Option(help="Where the contact sheet and the table go.")] = Path("out/toybox-evaluate"),
    weights: Annotated[Path | None, typer.Option(help="A diffusers folder; the installed toybox by default.")] = None,
    prompts: Annotated[int, typer.Option(help="Prompts for each of one and two objects.")] = 500,
    seeds: Annotated[int, typer.Option(help="Sampling seeds.")] = 3,
    guidance: Annotated[float, typer.Option(help="guidance_scale of the stock pipeline.")] = 5.0,
    compiled: Annotated[bool, typer.Option("--compile", help="Use torch.compile: needs a C++ compiler.")] = False,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    pipeline = StableDiffusionPipeline.from_pretrained(
        weights or scorers.weights_folder(), torch_dtype=torch.float32, safety_checker=None, local_files_only=True
    )
    timing = {"loading (s)": time.perf_counter() - begin, "a picture (s)": seconds_a_picture(pipeline)}
    if compiled:
        pipeline.unet.to(memory_format=torch.channels_last).compile(dynamic=False)
    scenes = [scene for things in (1, 2, 3) for scene in held_out_scenes(24 if things < 3 else 16, things, seed=2)]
    texts = [caption(scene) for scene in scenes]
    contact_sheet(paint_prompts(pipeline, texts, guidance=guidance), texts).save(out / "contact-sheet.png")
    table = {**timing, **measure(pipeline, prompts, seeds, guidance, print)}
    (out / "table.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"contact sheet and table in {out}")


if __name__ == "__main__":
    typer.run(main)
