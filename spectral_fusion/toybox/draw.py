"""Draws folders of images: `python -m spectral_fusion.toybox.draw identity|scene --seed N --count 6 --out DIR`."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Annotated

import typer

from spectral_fusion.errors import InputError
from spectral_fusion.toybox.paint import draw_mask, draw_scene
from spectral_fusion.toybox.world import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    Scene,
    Thing,
    arrange,
    caption,
    check_name,
    identity,
    plain_thing,
    random_scene,
)

app = typer.Typer(add_completion=False, help="Draws pictures of toybox's world.")

Out = Annotated[Path, typer.Option(help="Folder to write; it must be empty or new.")]


def identity_scenes(thing: Thing, count: int, seed: int) -> list[Scene]:
    """Scenes with this thing alone, the backgrounds as different as they can be."""
    rng = random.Random(f"photos {seed}")
    order = [b for _ in range(0, count, len(BACKGROUNDS)) for b in rng.sample(list(BACKGROUNDS), len(BACKGROUNDS))]
    return [arrange([thing], rng, background) for background in order[:count]]


def write_identity(thing: Thing, out: Path, *, count: int = 6, seed: int = 0) -> list[Path]:
    """Writes the folder of images of a concept: pictures, captions holding `<TOK>`, and masks.

    Raises InputError if `out` exists and is not empty.
    """
    folder = _empty_folder(out)
    paths = []
    for i, scene in enumerate(identity_scenes(thing, count, seed)):
        path = folder / f"{i:02d}.png"
        draw_scene(scene).save(path)
        draw_mask(scene, 0).save(folder / f"{path.stem}-masklabel.png")
        said = caption(scene).replace(thing.name, f"<TOK> {thing.name}", 1)
        path.with_suffix(".txt").write_text(said + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def _empty_folder(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    return out


@app.command("identity")
def identity_command(
    out: Out,
    seed: Annotated[int, typer.Option(help="Number of the identity.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=100, help="Pictures to draw.")] = 6,
    name: Annotated[str | None, typer.Option("--class", help=f"One of {', '.join(CLASSES)}.")] = None,
) -> None:
    """A new identity in several scenes, with captions and masks."""
    paths = write_identity(identity(seed, name), out, count=count, seed=seed)
    print(f"{len(paths)} pictures of a {identity(seed, name).name} in {out}")


@app.command("scene")
def scene_command(
    out: Out,
    seed: Annotated[int, typer.Option(help="Number of the first scene.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=10000, help="Pictures to draw.")] = 6,
    name: Annotated[str | None, typer.Option("--class", help="One object of this class only.")] = None,
    color: Annotated[str | None, typer.Option(help=f"Its colour: {', '.join(COLORS)}.")] = None,
    background: Annotated[str | None, typer.Option(help=f"One of {', '.join(BACKGROUNDS)}.")] = None,
) -> None:
    """Scenes of plain objects with captions, as the base was trained on."""
    for kind, value, known in (
        ("class", name, CLASSES),
        ("color", color, COLORS),
        ("background", background, BACKGROUNDS),
    ):
        if value is not None:
            check_name(kind, value, list(known))
    folder = _empty_folder(out)
    for i in range(count):
        rng = random.Random(f"scene {seed + i}")
        alone = name is not None or color is not None
        scene = arrange([plain_thing(rng, name, color)], rng) if alone else random_scene(rng)
        scene = Scene(background, scene.things, scene.horizon) if background else scene
        draw_scene(scene).save(folder / f"{i:04d}.png")
        (folder / f"{i:04d}.txt").write_text(caption(scene, rng) + "\n", encoding="utf-8")
    print(f"{count} scenes in {out}")


def main() -> None:
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
