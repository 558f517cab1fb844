"""Identity of people by their faces: ArcFace embeddings, through insightface, which is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.scorers import Scorers

SIDE = (640, 640)  # that faces are looked for in
WIDTH = 512  # of an embedding


class FaceScorers:
    """Who is seen, by the largest face; how well a picture fits a text is left to another judge.

    Args:
        name: a model pack of insightface, such as "buffalo_l", which it downloads itself, or the folder of one. The
            packs of its authors are for research alone.

    Raises:
        InputError: insightface is not installed, or the pack cannot be loaded.
    """

    def __init__(self, name: str, text: Scorers) -> None:
        self.text = text
        self._faces = _load(name)

    def embed_identity(self, images: Sequence[Image.Image]) -> Tensor:
        """(n, width): unit length; zeros where no face is seen, which is like nobody's."""
        seen = [self._largest(image) for image in images]
        width = next((len(face) for face in seen if face is not None), WIDTH)
        return torch.stack([torch.zeros(width) if face is None else face for face in seen])

    def text_alignment(self, images: Sequence[Image.Image], captions: Sequence[str]) -> Tensor:
        """(images, captions): the other judge's."""
        return self.text.text_alignment(images, captions)

    def _largest(self, image: Image.Image) -> Tensor | None:
        pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]  # OpenCV's order
        faces = self._faces.get(np.ascontiguousarray(pixels))
        if not faces:
            return None
        face = max(faces, key=lambda one: (one.bbox[2] - one.bbox[0]) * (one.bbox[3] - one.bbox[1]))
        return torch.from_numpy(np.asarray(face.normed_embedding, dtype=np.float32))


def _load(name: str) -> Any:
    try:
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise InputError(
            "faces are compared by insightface, which is an extra: pip install 'spectral-fusion[faces]'"
        ) from error
    try:
        with redirect_stdout(StringIO()):  # it prints where it downloads to
            faces = FaceAnalysis(name=name, allowed_modules=["detection", "recognition"])
            faces.prepare(ctx_id=0, det_size=SIDE)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"face models {name!r} cannot be loaded ({reason}); give buffalo_l, or a folder") from error
    return faces
