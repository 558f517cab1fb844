"""A tiny pipeline of each family, by its name."""

from collections.abc import Callable
from typing import Any

from tiny import tiny_pipeline
from tiny_flow import tiny_flux, tiny_klein, tiny_sd3, tiny_z_image
from tiny_sdxl import tiny_sdxl

FAMILIES: dict[str, Callable[[], Any]] = {
    "sd": tiny_pipeline,
    "sdxl": tiny_sdxl,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "flux2-klein": tiny_klein,
    "z-image": tiny_z_image,
}
