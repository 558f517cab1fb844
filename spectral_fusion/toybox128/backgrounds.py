"""The places of the drawn world: each painted once for every variant, then kept."""

from __future__ import annotations

import random
from functools import lru_cache

from PIL import Image, ImageDraw, ImageOps

from spectral_fusion.toybox.world import Color

SIZE = 128
FACTOR = 3
CANVAS = SIZE * FACTOR

# sky top, sky bottom, ground top, ground bottom
_LAND: dict[str, tuple[Color, Color, Color, Color]] = {
    "grass": ((140, 200, 246), (206, 232, 250), (122, 196, 92), (84, 160, 66)),
    "sand": ((120, 196, 240), (236, 240, 236), (244, 222, 164), (226, 192, 122)),
    "snow": ((170, 184, 206), (214, 222, 234), (250, 252, 254), (226, 234, 244)),
    "night": ((12, 14, 48), (40, 42, 92), (46, 56, 78), (26, 32, 50)),
    "sea": ((166, 212, 244), (232, 240, 248), (46, 122, 186), (20, 76, 136)),
    "room": ((236, 206, 176), (226, 192, 162), (168, 112, 70), (136, 86, 50)),
    "forest": ((58, 104, 74), (96, 146, 92), (84, 116, 58), (60, 84, 44)),
    "street": ((176, 206, 228), (222, 230, 234), (128, 130, 136), (98, 100, 108)),
    "mountains": ((128, 178, 226), (214, 230, 242), (132, 166, 104), (98, 134, 80)),
    "desert": ((252, 206, 132), (254, 234, 190), (222, 150, 84), (196, 118, 62)),
    "sunset": ((84, 52, 122), (250, 142, 92), (92, 62, 84), (60, 40, 64)),
    "kitchen": ((246, 240, 222), (238, 230, 208), (206, 214, 216), (172, 184, 190)),
}


@lru_cache(maxsize=512)
def background(name: str, variant: int) -> Image.Image:
    """The picture of a place at the size of the canvas; every other variant is a mirror image. Never draw on it."""
    rng = random.Random(f"{name} {variant}")
    horizon = round(rng.uniform(0.5, 0.66) * CANVAS)
    sky_top, sky_low, ground_top, ground_low = _LAND[name]
    canvas = Image.new("RGB", (CANVAS, CANVAS))
    canvas.paste(_gradient(sky_top, sky_low, horizon), (0, 0))
    canvas.paste(_gradient(ground_top, ground_low, CANVAS - horizon), (0, horizon))
    _DETAILS[name](ImageDraw.Draw(canvas), horizon, rng)
    return ImageOps.mirror(canvas) if variant % 2 else canvas


def _gradient(top: Color, low: Color, height: int) -> Image.Image:
    two = Image.new("RGB", (1, 2))
    two.putpixel((0, 0), top)
    two.putpixel((0, 1), low)
    return two.resize((CANVAS, height), Image.Resampling.BILINEAR)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: Color) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _cloud(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for dx, dy, radius in ((-24, 4, 15), (0, -6, 22), (26, 3, 16)):
        _disc(draw, x + dx, y + dy, radius, (250, 252, 254))
    draw.rectangle((x - 26, y + 4, x + 28, y + 18), fill=(250, 252, 254))


def _sky(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    """A sun or a cloud, or both."""
    kind = rng.randrange(3)
    if kind != 1:
        _disc(draw, rng.uniform(40, 150), rng.uniform(36, 70), 28, (254, 230, 110))
    if kind != 0:
        _cloud(draw, rng.uniform(230, 340), rng.uniform(36, 80))


def _grass(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _sky(draw, horizon, rng)
    for _ in range(9):
        x, y = rng.uniform(0, CANVAS), rng.uniform(horizon + 16, CANVAS)
        draw.line((x - 7, y - 12, x, y, x + 7, y - 12), fill=(72, 142, 56), width=4)


def _sand(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _sky(draw, horizon, rng)
    draw.rectangle((0, horizon - 26, CANVAS, horizon), fill=(70, 156, 206))


def _snow(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    x = rng.uniform(40, 120)
    draw.ellipse((x - 180, horizon - 40, x + 150, horizon + 60), fill=(238, 243, 249))
    for _ in range(14):
        _disc(draw, rng.uniform(0, CANVAS), rng.uniform(0, horizon - 20), 5, (250, 252, 255))


def _night(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _disc(draw, rng.uniform(250, 340), rng.uniform(40, 80), 28, (248, 240, 200))
    for _ in range(12):
        _disc(draw, rng.uniform(8, CANVAS), rng.uniform(8, horizon - 16), 4.5, (232, 232, 250))


def _sea(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _sky(draw, horizon, rng)
    for y in range(horizon + 20, CANVAS, 34):
        draw.line((0, y, CANVAS, y), fill=(120, 180, 224), width=6)


def _room(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    draw.rectangle((0, horizon - 7, CANVAS, horizon + 7), fill=(250, 240, 226))
    x = rng.uniform(24, 90)
    draw.rectangle((x, 36, x + 100, 140), fill=(250, 246, 236))
    draw.rectangle((x + 11, 47, x + 89, 129), fill=(160, 212, 240))
    draw.line((x + 50, 47, x + 50, 129), fill=(250, 246, 236), width=8)


def _forest(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    for i in range(6):
        x, wide = i * 70 + rng.uniform(0, 34), rng.uniform(11, 17)
        draw.rectangle((x - wide, 0, x + wide, horizon + rng.uniform(4, 18)), fill=(74, 56, 44))
    for _ in range(7):
        _disc(draw, rng.uniform(0, CANVAS), rng.uniform(0, 24), 46, (42, 92, 56))


def _street(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    x = 0.0
    while x < CANVAS:
        wide, high = rng.uniform(70, 110), rng.uniform(90, 170)
        wall = rng.choice(((196, 120, 96), (208, 188, 158), (150, 160, 178), (184, 150, 130)))
        draw.rectangle((x, horizon - high, x + wide, horizon), fill=wall)
        for row in range(int(high // 46)):
            for column in (0.2, 0.6):
                left, top = x + column * wide, horizon - high + 16 + 44 * row
                draw.rectangle((left, top, left + wide * 0.22, top + 24), fill=(236, 232, 190))
        x += wide + rng.choice((0, 0, 14))
    draw.rectangle((0, horizon, CANVAS, horizon + 16), fill=(186, 186, 186))
    for left in range(-20, CANVAS, 96):
        draw.rectangle((left, CANVAS - 52, left + 52, CANVAS - 42), fill=(240, 236, 220))


def _mountains(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _cloud(draw, rng.uniform(40, 340), rng.uniform(28, 44))
    for x, high in ((rng.uniform(40, 130), rng.uniform(120, 160)), (rng.uniform(240, 340), rng.uniform(90, 150))):
        top, wide = horizon - high, high * 1.05
        draw.polygon((x - wide, horizon, x, top, x + wide, horizon), fill=(112, 122, 148))
        part = 0.3
        draw.polygon(
            (x - wide * part, top + high * part, x, top, x + wide * part, top + high * part), fill=(248, 250, 252)
        )


def _desert(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _disc(draw, rng.uniform(60, 320), rng.uniform(40, 80), 32, (255, 246, 214))
    x = rng.uniform(40, 200)
    draw.ellipse((x - 200, horizon - 30, x + 200, horizon + 70), fill=(232, 164, 96))
    x, y = rng.uniform(30, 90), horizon + 4
    for box in ((x - 9, y - 84, x + 9, y), (x - 32, y - 56, x, y - 42), (x - 32, y - 74, x - 18, y - 42)):
        draw.rounded_rectangle(box, 7, fill=(74, 128, 70))


def _sunset(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _disc(draw, rng.uniform(100, 290), horizon, 56, (255, 222, 128))
    draw.rectangle((0, horizon, CANVAS, horizon + 60), fill=(88, 58, 82))


def _kitchen(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    color = rng.choice(((150, 190, 200), (196, 210, 170), (226, 176, 150)))
    for x in range(0, CANVAS, 48):
        draw.line((x, 90, x, horizon), fill=(222, 214, 194), width=4)
    for y in range(90, horizon, 48):
        draw.line((0, y, CANVAS, y), fill=(222, 214, 194), width=4)
    draw.rectangle((0, 0, CANVAS, 62), fill=color)
    for x in range(64, CANVAS, 128):
        draw.line((x, 0, x, 62), fill=(250, 248, 240), width=6)
    draw.rectangle((0, horizon - 12, CANVAS, horizon + 12), fill=(136, 96, 66))


_DETAILS = {
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "night": _night,
    "sea": _sea,
    "room": _room,
    "forest": _forest,
    "street": _street,
    "mountains": _mountains,
    "desert": _desert,
    "sunset": _sunset,
    "kitchen": _kitchen,
}
