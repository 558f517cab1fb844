"""A concept's tokens as a textual-inversion file."""

from pathlib import Path

from spectral_fusion.atomic import write_safetensors
from spectral_fusion.concept.file import Concept
from spectral_fusion.concept.lora import provenance
from spectral_fusion.errors import InputError


def export_embedding(concept: Concept, path: str | Path) -> Path:
    """Write the trigger's vectors as `{trigger: (n, width)}`, which `load_textual_inversion` reads without a name.

    Raises:
        InputError: the concept has vectors for several text encoders, or none.
    """
    if len(concept.embeddings) != 1:
        raise InputError(
            f"concept {concept.name!r} has vectors for {len(concept.embeddings)} text encoders; this format holds one"
        )
    (rows,) = concept.embeddings.values()
    tensors = {concept.trigger: rows.float()}
    metadata = provenance({concept: 1.0})
    metadata["modelspec.architecture"] = metadata["modelspec.architecture"].replace("lora", "textual-inversion")
    write_safetensors(Path(path), tensors, metadata)
    return Path(path)
