"""Draws folders of images: `python -m spectral_fusion.toybox128.draw identity|scene --seed N --count 6 --out DIR`."""

from __future__ import annotations

from spectral_fusion.toybox.draw import World, commands, run
from spectral_fusion.toybox128 import layout, paint, world
from spectral_fusion.toybox128.caption import caption

TOYBOX128 = World(
    world.CLASSES,
    list(world.COLORS),
    list(world.BACKGROUNDS),
    world.identity,
    world.plain_thing,
    layout.arrange,
    layout.random_scene,
    caption,
    paint.draw_scene,
    paint.draw_mask,
)

app = commands(TOYBOX128)

if __name__ == "__main__":
    run(app)
