"""Pictures that are given, in the shape of the one that is drawn."""

from PIL import Image


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture cut to the shape of (height, width) round its middle, and in that size."""
    height, width = size
    scale = max(width / image.width, height / image.height)
    cut = (width / scale, height / scale)
    left, top = (image.width - cut[0]) / 2, (image.height - cut[1]) / 2
    box = (left, top, left + cut[0], top + cut[1])
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, box=box)
