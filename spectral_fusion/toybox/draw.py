"""Draws folders of images: `python -m spectral_fusion.toybox.draw identity|scene --seed N --count 6 --out DIR`."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from spectral_fusion.errors import InputError
from spectral_fusion.toybox import paint, world
from spectral_fusion.toybox.world import Scene, Thing, check_name

Out = Annotated[Path, typer.Option(help="Folder to write; it must be empty or new.")]


@dataclass(frozen=True)
class World:
    """What a drawn world offers to those who draw folders of it. Things and scenes are of its own kinds."""

    classes: Sequence[str]
    colors: Sequence[str]
    backgrounds: Sequence[str]
    identity: Callable[..., Any]
    plain_thing: Callable[..., Any]
    arrange: Callable[..., Any]
    random_scene: Callable[..., Any]
    caption: Callable[..., str]
    draw_scene: Callable[[Any], Image.Image]
    draw_mask: Callable[[Any, int], Image.Image]


TOYBOX = World(
    world.CLASSES,
    list(world.COLORS),
    list(world.BACKGROUNDS),
    world.identity,
    world.plain_thing,
    world.arrange,
    world.random_scene,
    world.caption,
    paint.draw_scene,
    paint.draw_mask,
)


def identity_scenes(thing: Thing, count: int, seed: int, world: World = TOYBOX) -> list[Scene]:
    """Scenes with this thing alone, the backgrounds as different as they can be."""
    rng, places = random.Random(f"photos {seed}"), list(world.backgrounds)
    order = [b for _ in range(0, count, len(places)) for b in rng.sample(places, len(places))]
    return [world.arrange([thing], rng, background) for background in order[:count]]


def write_identity(thing: Thing, out: Path, *, count: int = 6, seed: int = 0, world: World = TOYBOX) -> list[Path]:
    """Writes the folder of images of a concept: pictures, captions holding `<TOK>`, and masks.

    Raises InputError if `out` exists and is not empty.
    """
    folder = _empty_folder(out)
    paths = []
    for i, scene in enumerate(identity_scenes(thing, count, seed, world)):
        path = folder / f"{i:02d}.png"
        world.draw_scene(scene).save(path)
        world.draw_mask(scene, 0).save(folder / f"{path.stem}-masklabel.png")
        said = world.caption(scene).replace(thing.name, f"<TOK> {thing.name}", 1)
        path.with_suffix(".txt").write_text(said + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def _empty_folder(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    return out


def commands(world: World) -> typer.Typer:
    """The command line that draws a world."""
    app = typer.Typer(add_completion=False, help="Draws pictures of the drawn world.")

    @app.command("identity")
    def identity_command(
        out: Out,
        seed: Annotated[int, typer.Option(help="Number of the identity.")] = 0,
        count: Annotated[int, typer.Option(min=1, max=100, help="Pictures to draw.")] = 6,
        name: Annotated[str | None, typer.Option("--class", help="Its class; any if left out.")] = None,
    ) -> None:
        """A new identity in several scenes, with captions and masks."""
        thing = world.identity(seed, name)
        paths = write_identity(thing, out, count=count, seed=seed, world=world)
        print(f"{len(paths)} pictures of a {thing.name} in {out}")

    @app.command("scene")
    def scene_command(
        out: Out,
        seed: Annotated[int, typer.Option(help="Number of the first scene.")] = 0,
        count: Annotated[int, typer.Option(min=1, max=10000, help="Pictures to draw.")] = 6,
        name: Annotated[str | None, typer.Option("--class", help="One object of this class only.")] = None,
        color: Annotated[str | None, typer.Option(help="Its colour.")] = None,
        background: Annotated[str | None, typer.Option(help="The place.")] = None,
    ) -> None:
        """Scenes of plain objects with captions, as the base was trained on."""
        for kind, value, known in (
            ("class", name, world.classes),
            ("color", color, world.colors),
            ("background", background, world.backgrounds),
        ):
            if value is not None:
                check_name(kind, value, known)
        folder = _empty_folder(out)
        for i in range(count):
            rng = random.Random(f"scene {seed + i}")
            alone = name is not None or color is not None
            scene = world.arrange([world.plain_thing(rng, name, color)], rng) if alone else world.random_scene(rng)
            scene = replace(scene, background=background) if background else scene
            world.draw_scene(scene).save(folder / f"{i:04d}.png")
            (folder / f"{i:04d}.txt").write_text(world.caption(scene, rng) + "\n", encoding="utf-8")
        print(f"{count} scenes in {out}")

    return app


def run(app: typer.Typer) -> None:
    """Runs the command line; what a user can mend ends in one line."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


app = commands(TOYBOX)

if __name__ == "__main__":
    run(app)
