"""The judges of identity and text for a base, by the names that a user gives."""

from __future__ import annotations

from spectral_fusion.base.interface import Base
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.faces import FaceScorers
from spectral_fusion.evaluate.scorers import CLIP, DINO, PretrainedScorers, Scorers


def load_scorers(base: Base, *, clip: str | None = None, dino: str | None = None, faces: str | None = None) -> Scorers:
    """The judges for a base: its own where it has some, else CLIP for text and DINO for identity, on its device.

    Args:
        clip, dino: folder or hub id; None takes `CLIP` and `DINO`, or the base's own.
        faces: a model pack of insightface; identity is then that of faces, not of whole subjects.

    Raises:
        InputError: `dino` and `faces` are both given, or one cannot be loaded.
    """
    if dino is not None and faces is not None:
        raise InputError("identity is judged by DINO or by faces, and both are given; give one")
    own = base.scorers()
    if own is not None and clip is None and dino is None:
        return own if faces is None else FaceScorers(faces, own)
    if faces is not None:
        return FaceScorers(faces, PretrainedScorers(clip or CLIP, None, device=base.device))
    return PretrainedScorers(clip or CLIP, dino or DINO, device=base.device)
