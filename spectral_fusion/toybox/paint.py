"""Draws a `Scene` with Pillow: at 256 px, reduced to 64 px, so that edges are smooth."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw

from spectral_fusion.toybox.shapes import FIXED, SHAPES, Part, Shape
from spectral_fusion.toybox.world import Color, Marks, Placed, Scene

SIZE = 64
FACTOR = 4
CANVAS = SIZE * FACTOR
OUTLINE = 3.2  # pixels of the canvas: a bit less than one pixel of the picture

# sky top, sky bottom, ground top, ground bottom
_LAND: dict[str, tuple[Color, Color, Color, Color]] = {
    "grass": ((140, 200, 246), (206, 232, 250), (122, 196, 92), (84, 160, 66)),
    "sand": ((120, 196, 240), (236, 240, 236), (244, 222, 164), (226, 192, 122)),
    "snow": ((170, 184, 206), (214, 222, 234), (250, 252, 254), (226, 234, 244)),
    "night": ((12, 14, 48), (40, 42, 92), (46, 56, 78), (26, 32, 50)),
    "sea": ((166, 212, 244), (232, 240, 248), (46, 122, 186), (20, 76, 136)),
    "room": ((236, 206, 176), (226, 192, 162), (168, 112, 70), (136, 86, 50)),
}


class Frame:
    """Maps the unit square of one object onto the canvas."""

    def __init__(self, placed: Placed, wide: float) -> None:
        self.scale_y = placed.half * CANVAS
        self.scale_x = self.scale_y * wide
        self.x = placed.x * CANVAS
        self.y = placed.y * CANVAS - self.scale_y

    def point(self, x: float, y: float) -> tuple[float, float]:
        return (self.x + x * self.scale_x, self.y + y * self.scale_y)

    def length(self, units: float) -> int:
        return max(1, round(units * self.scale_y))


def draw_scene(scene: Scene) -> Image.Image:
    """The picture of a scene, RGB, 64 x 64."""
    canvas = _background(scene.background, round(scene.horizon * CANVAS)).copy()
    for placed in scene.things:
        _draw_thing(canvas, placed)
    return canvas.reduce(FACTOR)


def draw_mask(scene: Scene, index: int) -> Image.Image:
    """Where the thing of that index is: "L", 64 x 64, 255 inside, its accessory and outline included."""
    before = Image.new("RGB", (CANVAS, CANVAS), (1, 2, 3))  # a colour that nothing is painted in
    after = before.copy()
    _draw_thing(after, scene.things[index])
    red, green, blue = ImageChops.difference(before, after).split()
    changed = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return changed.point([0, *[255] * 255]).reduce(FACTOR)


@lru_cache(maxsize=256)
def _background(name: str, horizon: int) -> Image.Image:
    sky_top, sky_low, ground_top, ground_low = _LAND[name]
    canvas = Image.new("RGB", (CANVAS, CANVAS))
    canvas.paste(_gradient(sky_top, sky_low, horizon), (0, 0))
    canvas.paste(_gradient(ground_top, ground_low, CANVAS - horizon), (0, horizon))
    draw = ImageDraw.Draw(canvas)
    if name == "night":
        draw.ellipse((198, 20, 234, 56), fill=(248, 240, 200))
        for x, y in ((30, 40), (78, 22), (128, 50), (170, 28), (54, 92), (150, 84), (224, 96), (104, 100)):
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(232, 232, 250))
    elif name == "sea":
        for y in range(horizon + 18, CANVAS, 26):
            draw.line((0, y, CANVAS, y), fill=(120, 180, 224), width=4)
    elif name == "room":
        draw.rectangle((0, horizon - 5, CANVAS, horizon + 5), fill=(250, 240, 226))
        draw.rectangle((26, 26, 92, 96), fill=(250, 246, 236))
        draw.rectangle((34, 34, 84, 88), fill=(160, 212, 240))
    elif name in ("grass", "sand"):
        draw.ellipse((22, 18, 62, 58), fill=(254, 230, 110))
    return canvas


def _gradient(top: Color, low: Color, height: int) -> Image.Image:
    two = Image.new("RGB", (1, 2))
    two.putpixel((0, 0), top)
    two.putpixel((0, 1), low)
    return two.resize((CANVAS, height), Image.Resampling.BILINEAR)


def _draw_thing(canvas: Image.Image, placed: Placed) -> None:
    thing, shape = placed.thing, SHAPES[placed.thing.name]
    frame = Frame(placed, shape.wide)
    draw = ImageDraw.Draw(canvas)
    for part in shape.silhouette:
        _outline(draw, frame, part)
    colors = {"body": thing.color, "shade": _mix(thing.color, 0.68), "tint": _mix(thing.color, 1.3), **FIXED}
    for part in shape.parts:
        if part.role == "body" and thing.marks and thing.marks.pattern:
            _pattern_fill(canvas, frame, part, thing.color, thing.marks)
        else:
            _fill(draw, frame, part, colors[part.role])
    if thing.marks and thing.marks.accessory:
        _accessory(draw, frame, shape, thing.marks)


def _mix(color: Color, factor: float) -> Color:
    """Darker below one, lighter above: towards white by the part over one."""
    if factor <= 1:
        return tuple(round(c * factor) for c in color)  # type: ignore[return-value]
    return tuple(round(c + (255 - c) * (factor - 1)) for c in color)  # type: ignore[return-value]


def _fill(draw: ImageDraw.ImageDraw, frame: Frame, part: Part, color: Color | int, grow: float = 0.0) -> None:
    points = [frame.point(x, y) for x, y in part.points]
    if part.kind in ("ellipse", "box"):
        (x0, y0), (x1, y1) = points
        corners = (x0 - grow, y0 - grow, x1 + grow, y1 + grow)
        if part.kind == "ellipse":
            draw.ellipse(corners, fill=color)
        else:
            draw.rectangle(corners, fill=color)
    elif part.kind == "polygon":
        draw.polygon(points, fill=color)
        if grow:
            draw.line([*points, points[0], points[1]], fill=color, width=round(2 * grow), joint="curve")
    else:
        draw.line(points, fill=color, width=frame.length(part.width) + round(2 * grow), joint="curve")


def _outline(draw: ImageDraw.ImageDraw, frame: Frame, part: Part) -> None:
    _fill(draw, frame, part, FIXED["dark"], grow=OUTLINE)


def _pattern_fill(canvas: Image.Image, frame: Frame, part: Part, color: Color, marks: Marks) -> None:
    mask = Image.new("L", canvas.size, 0)
    _fill(ImageDraw.Draw(mask), frame, part, 255)
    bounds = mask.getbbox()
    if bounds is None:
        return
    texture = Image.new("RGB", canvas.size, color)
    _pattern(ImageDraw.Draw(texture), frame, marks)
    canvas.paste(texture.crop(bounds), bounds[:2], mask.crop(bounds))


def _pattern(draw: ImageDraw.ImageDraw, frame: Frame, marks: Marks) -> None:
    def box(x0: float, y0: float, x1: float, y1: float) -> None:
        draw.rectangle((*frame.point(x0, y0), *frame.point(x1, y1)), fill=marks.pattern_color)

    steps = range(-4, 5)
    if marks.pattern == "stripes":
        for i in steps:
            box(-1.2, 0.62 * i, 1.2, 0.62 * i + 0.31)
    elif marks.pattern == "bands":
        for i in steps:
            box(0.62 * i - 0.16, -1.2, 0.62 * i + 0.16, 1.2)
    elif marks.pattern == "checks":
        for i in steps:
            for j in steps:
                if (i + j) % 2 == 0:
                    box(0.48 * i, 0.48 * j, 0.48 * i + 0.48, 0.48 * j + 0.48)
    elif marks.pattern == "halves":
        box(0.0, -1.2, 1.2, 1.2)
    else:
        for i in steps:
            for j in steps:
                x, y = 0.62 * i + (0.31 if j % 2 else 0.0), 0.5 * j
                draw.ellipse(
                    (*frame.point(x - 0.18, y - 0.18), *frame.point(x + 0.18, y + 0.18)), fill=marks.pattern_color
                )


def _accessory(draw: ImageDraw.ImageDraw, frame: Frame, shape: Shape, marks: Marks) -> None:
    if marks.accessory == "hat":
        x, y, w = shape.hat
        parts = [
            Part("box", ((x - w, y - 0.1), (x + w, y + 0.04))),
            Part("box", ((x - 0.6 * w, y - 0.55), (x + 0.6 * w, y))),
        ]
    elif marks.accessory == "scarf":
        y, w = shape.scarf
        parts = [
            Part("box", ((-w, y - 0.12), (w, y + 0.1))),
            Part("box", ((0.25 * w, y), (0.25 * w + 0.24, y + 0.5))),
        ]
    else:
        x, y, radius = shape.badge
        parts = [Part("ellipse", ((x - radius, y - radius), (x + radius, y + radius)))]
    for part in parts:
        _outline(draw, frame, part)
    for part in parts:
        _fill(draw, frame, part, marks.accessory_color)
