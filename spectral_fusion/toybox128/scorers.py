"""The small models that judge pictures of the second drawn world, and where its weights are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from spectral_fusion.errors import InputError
from spectral_fusion.toybox.data import to_tensor
from spectral_fusion.toybox128.backgrounds import SIZE
from spectral_fusion.toybox128.data import view
from spectral_fusion.toybox128.detector import Found, find

Box = tuple[float, float, float, float]
BATCH = 32


def weights_folder() -> Path:
    """The diffusers folder of the second edition inside the installed package; its scorers are in `scorers/`."""
    return Path(__file__).parent / "weights"


@cache
def load_scorer(name: str, folder: Path) -> CLIPVisionModelWithProjection:
    """A scorer of a packed folder.

    Raises InputError if it is missing or damaged.
    """
    place = folder / "scorers" / name
    try:
        return CLIPVisionModelWithProjection.from_pretrained(place, dtype=torch.float32, local_files_only=True).eval()
    except Exception as error:
        raise InputError(
            f"the scorer {name!r} cannot be read from {place} ({type(error).__name__}); "
            "reinstall the package: pip install --force-reinstall spectral-fusion"
        ) from error


@torch.no_grad()
def find_things(images: Sequence[Image.Image], folder: Path | None = None) -> list[tuple[str, list[Found]]]:
    """The place, and the things from left to right, of each picture."""
    detector = load_scorer("detector", folder or weights_folder())
    sized = [image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC) for image in images]
    pixels = torch.stack([to_tensor(image) for image in sized])
    return [seen for part in pixels.split(BATCH) for seen in find(detector, part)]


@torch.no_grad()
def embed_identity(images: Sequence[Image.Image], boxes: Sequence[Box], folder: Path | None = None) -> Tensor:
    """Who stands in the box of each picture: (n, width), unit length; cosines compare identities."""
    encoder = load_scorer("identity", folder or weights_folder())
    views = [to_tensor(view(image.convert("RGB"), box)) for image, box in zip(images, boxes, strict=True)]
    embeds = [encoder(part).image_embeds for part in torch.stack(views).split(BATCH)]
    return F.normalize(torch.cat(embeds), dim=-1)
