"""The small models that judge pictures of the drawn world, and where toybox's weights are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPVisionModelWithProjection, PreTrainedModel

from spectral_fusion.errors import InputError
from spectral_fusion.toybox.data import to_tensor, tokenize
from spectral_fusion.toybox.models import split_logits
from spectral_fusion.toybox.paint import SIZE


def weights_folder() -> Path:
    """The diffusers folder of toybox inside the installed package; its scorers are in `scorers/`."""
    return Path(__file__).parent / "weights"


@cache
def _load(kind: type[PreTrainedModel], name: str) -> PreTrainedModel:
    folder = weights_folder() / "scorers" / name
    try:
        return kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    except Exception as error:
        raise InputError(
            f"toybox's scorer {name!r} cannot be read from {folder} ({type(error).__name__}); "
            "reinstall the package: pip install --force-reinstall spectral-fusion"
        ) from error


def _pixels(images: Sequence[Image.Image]) -> Tensor:
    """Pictures of any size to (n, 3, 64, 64)."""
    return torch.stack(
        [to_tensor(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in images]
    )


@torch.no_grad()
def classify(images: Sequence[Image.Image]) -> Tensor:
    """What is seen: (n, 7) in the order of `data.labels`."""
    classifier = _load(CLIPVisionModelWithProjection, "classifier")
    return torch.stack([row.argmax(-1) for row in split_logits(classifier(_pixels(images)).image_embeds)], dim=1)


@torch.no_grad()
def embed_identity(images: Sequence[Image.Image]) -> Tensor:
    """Who is seen: (n, width), unit length; cosines compare identities."""
    return F.normalize(_load(CLIPVisionModelWithProjection, "identity")(_pixels(images)).image_embeds, dim=-1)


@torch.no_grad()
def text_alignment(images: Sequence[Image.Image], captions: Sequence[str]) -> Tensor:
    """Cosine of every picture with every caption: (pictures, captions)."""
    scorer = _load(CLIPModel, "text")
    out = scorer(input_ids=torch.stack([tokenize(text) for text in captions]), pixel_values=_pixels(images))
    return out.image_embeds @ out.text_embeds.T
