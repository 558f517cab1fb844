"""A concept's tokens as a textual-inversion file."""

from pathlib import Path

from spectral_fusion.atomic import write_safetensors
from spectral_fusion.concept.file import Concept
from spectral_fusion.concept.lora import provenance
from spectral_fusion.errors import InputError

XL_NAMES = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
"""What XL's files call the vectors of each text encoder; the trigger is the file's name there."""


def export_embedding(concept: Concept, path: str | Path) -> Path:
    """Write the trigger's vectors as other programs read them.

    For one text encoder `{trigger: (n, width)}`, which `load_textual_inversion` reads without a name; for XL
    `{"clip_l": (n, 768), "clip_g": (n, 1280)}`.

    Raises:
        InputError: the concept has no vectors.
    """
    if not concept.embeddings:
        raise InputError(f"concept {concept.name!r} has no vectors of its own; nothing to export")
    if len(concept.embeddings) == 1:
        (rows,) = concept.embeddings.values()
        tensors = {concept.trigger: rows.float()}
    else:
        tensors = {XL_NAMES[part]: rows.float() for part, rows in concept.embeddings.items()}
    metadata = provenance({concept: 1.0})
    metadata["modelspec.architecture"] = metadata["modelspec.architecture"].replace("lora", "textual-inversion")
    write_safetensors(Path(path), tensors, metadata)
    return Path(path)
