"""A concept's tokens as a textual-inversion file."""

from pathlib import Path

from safetensors.torch import save_file

from spectral_fusion.concept.atomic import atomic_file
from spectral_fusion.concept.file import Concept
from spectral_fusion.concept.lora import provenance


def export_embedding(concept: Concept, path: str | Path) -> Path:
    """Write the trigger's vectors as `{trigger: (n, width)}`, which `load_textual_inversion` reads without a name."""
    tensors = {concept.trigger: concept.embeddings.float().contiguous()}
    metadata = provenance({concept: 1.0}) | {"modelspec.architecture": "stable-diffusion-v1/textual-inversion"}
    with atomic_file(Path(path)) as part:
        save_file(tensors, part, metadata)
    return Path(path)
