"""The models that judge pictures: who is in them, and how well they fit a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from spectral_fusion.errors import InputError

BATCH = 32
CLIP = "openai/clip-vit-base-patch32"
DINO = "facebook/dinov2-base"


class Scorers(Protocol):
    """A judge of pictures; `spectral_fusion.toybox.scorers` is one, `PretrainedScorers` another."""

    def embed_identity(self, images: Sequence[Image.Image]) -> Tensor:
        """(n, width), unit length: cosines compare who is seen."""

    def text_alignment(self, images: Sequence[Image.Image], captions: Sequence[str]) -> Tensor:
        """(images, captions): the cosine of every picture with every caption."""


class PretrainedScorers:
    """CLIP and a vision transformer such as DINO, DINOv2 or a ViT trained on faces.

    Args:
        clip: folder or hub id of a `CLIPModel`.
        dino: folder or hub id of a vision model with a processor; its first token is the embedding. None: there is
            none, and identity is judged elsewhere.

    Raises:
        InputError: a model is neither a folder nor in the hub's cache or reach, or of another kind.
    """

    def __init__(self, clip: str = CLIP, dino: str | None = DINO, device: str | torch.device = "cpu"):
        from transformers import AutoImageProcessor, AutoModel, CLIPModel, CLIPProcessor

        if (kind := _model_type(clip)) != "clip":
            raise InputError(f"scorer {clip!r} is a {kind}; text is judged by a CLIP model, such as {CLIP}")
        self._clip, self._clip_processor = _load(clip, CLIPModel, CLIPProcessor, device)
        if dino is not None:
            self._dino, self._dino_processor = _load(dino, AutoModel, AutoImageProcessor, device)

    @torch.no_grad()
    def embed_identity(self, images: Sequence[Image.Image]) -> Tensor:
        """(n, width), unit length."""
        parts = []
        for start in range(0, len(images), BATCH):
            inputs = self._dino_processor(images=list(images[start : start + BATCH]), return_tensors="pt")
            parts.append(self._dino(**inputs.to(self._dino.device)).last_hidden_state[:, 0].cpu())
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def text_alignment(self, images: Sequence[Image.Image], captions: Sequence[str]) -> Tensor:
        """(images, captions): cosines."""
        parts = []
        for start in range(0, len(images), BATCH):
            batch = list(images[start : start + BATCH])
            inputs = self._clip_processor(
                text=list(captions), images=batch, return_tensors="pt", padding=True, truncation=True
            )
            seen = self._clip(**inputs.to(self._clip.device))
            parts.append((seen.image_embeds @ seen.text_embeds.T).cpu())
        return torch.cat(parts)


def _model_type(name: str) -> str:
    """What kind of model it is. Transformers would load another kind too, with random weights."""
    from transformers import AutoConfig

    with loading(name):
        return AutoConfig.from_pretrained(name).model_type


def _load(name: str, model: Any, processor: Any, device: str | torch.device) -> tuple[Any, Any]:
    with loading(name):
        return model.from_pretrained(name).eval().to(device), processor.from_pretrained(name)


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turns what transformers raises for a model that is not there, or of another kind, into an InputError."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"scorer {name!r} cannot be loaded ({reason}); give a folder or a hub id in reach") from error
