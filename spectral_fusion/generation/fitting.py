"""Pictures that are given, in the shape of the one that is drawn."""

from PIL import Image

from spectral_fusion.reading.modes import WHITE, as_rgb


def fitted(image: Image.Image, size: tuple[int, int], background: tuple[int, int, int] = WHITE) -> Image.Image:
    """A picture cut to the shape of (height, width) round its middle, and in that size; RGB, on that background."""
    height, width = size
    scale = max(width / image.width, height / image.height)
    cut = (width / scale, height / scale)
    left, top = (image.width - cut[0]) / 2, (image.height - cut[1]) / 2
    box = (left, top, left + cut[0], top + cut[1])
    return as_rgb(image, background).resize((width, height), Image.Resampling.LANCZOS, box=box)
