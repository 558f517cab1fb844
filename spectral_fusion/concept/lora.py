"""Concepts as one LoRA file for other programs: exact, by concatenating factors."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_fusion.atomic import write_safetensors
from spectral_fusion.concept.file import Concept
from spectral_fusion.concept.joint import check_same_base, joint_factors, layer_names
from spectral_fusion.concept.keys import diffusers_keys, kohya_keys, left_by_kohya
from spectral_fusion.concept.metadata import OURS, architecture, check_weight, library_versions
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Factors

# Layers outside the blocks, for which kohya's own scripts make no adapter and drop what a file has.

LoraFormat = Literal["diffusers", "kohya"]
KOHYA_VERSIONS = {
    "stable-diffusion-v1": "sd_v1",
    "stable-diffusion-v2": "sd_v2",
    "stable-diffusion-xl-v1-base": "sdxl_base_v1-0",
    "stable-diffusion-3": "sd3",
    "flux-1-dev": "flux1",
}


def export_lora(
    concepts: Mapping[Concept, float],
    path: str | Path,
    to: LoraFormat = "diffusers",
    *,
    dtype: torch.dtype = torch.float32,
    joint: Mapping[str, Factors] | None = None,
    kernels: Mapping[str, tuple[int, ...]] | None = None,
) -> Path:
    """Write the weighted sum of concepts as one LoRA; `export_embedding` writes their tokens.

    Rank is the sum of the concepts' own (2r additive, r rotational), the same in every layer and equal to alpha: layers
    that fewer concepts adapt are filled up with zeros, since loaders mis-scale files of several ranks.

    Args:
        to: "diffusers" is the PEFT naming; "kohya" that of sd-scripts, which other programs read.
        dtype: float16 halves the file and rounds the delta by up to 1e-3 of its size.
        joint: other deltas than the sum, by layer, such as routed ones; their largest rank is the file's.
        kernels: kernel sizes of their layers that are convolutions.

    Raises:
        InputError: no concept, two of different bases, a weight that is not a number or too large, or an unknown
            format.
    """
    if to not in get_args(LoraFormat):
        raise InputError(f"LoRA format {to!r} is unknown; use one of {', '.join(get_args(LoraFormat))}")
    check_same_base(list(concepts))
    family = next(iter(concepts)).family
    for concept, weight in concepts.items():
        check_weight(concept, weight)
    rank = sum(concept.factor_rank for concept in concepts)
    if joint is not None:
        rank = max(len(factors.down) for factors in joint.values())
    if kernels is None:
        kernels = {name: kernel for concept in concepts for name, kernel in concept.kernels.items()}
    tensors: dict[str, Tensor] = {}
    for name in layer_names(concepts) if joint is None else joint:
        up, down = joint_factors(concepts, name) if joint is None else joint[name]
        up, down = F.pad(up, (0, rank - up.shape[1])), F.pad(down, (0, 0, 0, rank - len(down)))
        if kernel := kernels.get(name):
            up, down = up[:, :, None, None], down.unflatten(1, (-1, *kernel))
        keys = diffusers_keys(name) if to == "diffusers" else kohya_keys(name, family)
        tensors |= {keys.down: down, keys.up: up}
        if keys.alpha:
            tensors[keys.alpha] = torch.tensor(float(rank))
    tensors = {key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}
    check_finite(tensors.values(), f"the LoRA {path}")
    metadata = (
        provenance(concepts) | _kohya_metadata(concepts, rank) | {"modelspec.hash_sha256": _content_hash(tensors)}
    )
    write_safetensors(Path(path), tensors, metadata)
    return Path(path)


def check_finite(tensors: Iterable[Tensor], what: str) -> None:
    """Raises InputError where `what` would hold numbers beyond those of its type: any picture of it is black."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise InputError(f"{what} would hold numbers that are not finite; lower the weights, or write 32-bit numbers")


def unread_by_kohya(concepts: Iterable[Concept]) -> list[str]:
    """Adapted layers that kohya's own scripts leave out when they load an export; other programs read all."""
    return left_by_kohya(layer_names(concepts))


def provenance(concepts: Mapping[Concept, float]) -> dict[str, str]:
    """Metadata of anything made from concepts: its triggers, which concepts at which weights, on which base."""
    names = ", ".join(f"{concept.name} {weight:g}" for concept, weight in concepts.items())
    first = next(iter(concepts))
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{_generation(first)[0]}/lora",
        "modelspec.title": " + ".join(concept.name for concept in concepts),
        "modelspec.date": datetime.now(timezone.utc).date().isoformat(),
        "modelspec.trigger_phrase": ", ".join(concept.trigger for concept in concepts),
        "modelspec.tags": ", ".join(dict.fromkeys(concept.class_word for concept in concepts)),
        "modelspec.merged_from": names,
        OURS + "merged_from": names,
        OURS + "base": first.base,
        OURS + "base_name": first.base_name,
        OURS + "versions": library_versions(),
    }


def _kohya_metadata(concepts: Mapping[Concept, float], rank: int) -> dict[str, str]:
    first = next(iter(concepts))
    return {
        "ss_output_name": "_".join(concept.name for concept in concepts),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
        "ss_base_model_version": _generation(first)[1],
        "ss_sd_model_name": first.base_name,
    }


def _generation(concept: Concept) -> tuple[str, str]:
    """Which model a concept is of, as modelspec and as kohya call it."""
    of = architecture(concept.family, [rows.shape[1] for rows in concept.embeddings.values()])
    return of, KOHYA_VERSIONS.get(of, concept.family)


def _content_hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"0x{digest.hexdigest()}"
