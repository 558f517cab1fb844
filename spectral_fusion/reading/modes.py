"""Pictures of any mode as 8-bit RGB: Pillow's own conversion clips 16 bits at 255 and shows what transparency hides."""

from __future__ import annotations

from typing import Any

from PIL import Image

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def as_rgb(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """A picture in any mode as 8-bit RGB, its transparency flattened on `background`."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = Image.fromarray(_high_bytes(image))
    if image.mode == "F":  # TIFF: numbers of any range
        image = _stretched(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    flat = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(flat, image).convert("RGB")


def _high_bytes(image: Image.Image) -> Any:
    import numpy as np

    return (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)


def _stretched(image: Image.Image) -> Image.Image:
    """Floating point as 8 bits: 0 to 1 where the numbers lie there, else their own range."""
    import numpy as np

    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), values.max())
    return Image.fromarray(((values - low) / max(high - low, 1e-9) * 255).astype(np.uint8))
