"""Pictures of any mode wherever one is given: 16 bits are scaled and not clipped, what is transparent stays hidden."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spectral_fusion.base.control import Control, ControlNet
from spectral_fusion.base.painted import mask_tensor, mask_text
from spectral_fusion.generation.config import image_digest
from spectral_fusion.generation.fitting import fitted
from spectral_fusion.reading import load_picture
from spectral_fusion.reading.modes import BLACK, as_rgb

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F", "RGBa")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_eight_bits_of_red_green_and_blue(mode: str) -> None:
    image = Image.new(mode, (16, 12))
    assert (as_rgb(image).mode, as_rgb(image).size) == ("RGB", (16, 12))
    assert fitted(image, (8, 8)).size == (8, 8)
    assert len(image_digest(image)) == 10


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    image = load_picture(tmp_path / "grey.png")
    found = np.asarray(fitted(image, (8, 8)))[:, :, 0].astype(int)
    assert np.abs(found - (values >> 8)).max() <= 1
    assert 0.4 < mask_tensor(mask_text(image)).mean() < 0.6, "once every grey was white"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_is_background(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0)).convert(mode)
    assert as_rgb(image).getpixel((0, 0)) == (255, 255, 255)
    assert as_rgb(image, BLACK).getpixel((0, 0)) == (0, 0, 0)
    control = Control(ControlNet("edges", None), image)  # type: ignore[arg-type]
    assert control.pixels.max() == 0, "a transparent control picture says nothing"


def test_a_transparent_colour_of_a_palette_is_background(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 3)
    image.putpalette([10, 20, 30] * 256)
    image.save(tmp_path / "p.png", transparency=3)
    assert as_rgb(load_picture(tmp_path / "p.png")).getpixel((0, 0)) == (255, 255, 255)
