"""Concepts as one LoRA file for other programs: exact, by concatenating factors."""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from spectral_fusion.concept.atomic import atomic_file
from spectral_fusion.concept.attach import check_weight
from spectral_fusion.concept.file import Concept
from spectral_fusion.concept.metadata import OURS, library_versions
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Factors

LoraFormat = Literal["diffusers", "kohya"]


def export_lora(
    concepts: Mapping[Concept, float],
    path: str | Path,
    to: LoraFormat = "diffusers",
    *,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write the weighted sum of concepts as one LoRA; `export_embedding` writes their tokens.

    Rank is the sum of the concepts' own (2r additive, r rotational), the same in every layer and equal to alpha: layers
    that fewer concepts adapt are filled up with zeros, since loaders mis-scale files of several ranks.

    Args:
        to: "diffusers" is the PEFT naming; "kohya" that of sd-scripts for Stable Diffusion 1.x.
        dtype: float16 halves the file and rounds the delta by up to 1e-3 of its size.

    Raises:
        InputError: no concept, two of different bases, a weight that is not a number, or an unknown format.
    """
    if to not in get_args(LoraFormat):
        raise InputError(f"LoRA format {to!r} is unknown; use one of {', '.join(get_args(LoraFormat))}")
    layers = joint_factors(concepts)
    rank = next(iter(layers.values())).up.shape[1]
    kernels = {name: kernel for concept in concepts for name, kernel in concept.kernels.items()}
    tensors: dict[str, Tensor] = {}
    for name, (up, down) in layers.items():
        if kernel := kernels.get(name):
            up, down = up[:, :, None, None], down.unflatten(1, (-1, *kernel))
        if to == "diffusers":
            key = _diffusers_key(name)
            tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        else:
            key = _kohya_key(name)
            alpha = torch.tensor(float(rank))
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": alpha}
    tensors = {key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}
    metadata = (
        provenance(concepts) | _kohya_metadata(concepts, rank) | {"modelspec.hash_sha256": _content_hash(tensors)}
    )
    with atomic_file(Path(path)) as part:
        save_file(tensors, part, metadata)
    return Path(path)


def joint_factors(concepts: Mapping[Concept, float]) -> dict[str, Factors]:
    """Factors of `sum of weight * delta` for each layer that any of the concepts adapts, all of one rank.

    Raises:
        InputError: no concept, two of different bases, or a weight that is not a number.
    """
    check_same_base(list(concepts))
    for concept, weight in concepts.items():
        check_weight(concept, weight)
    shapes = {
        name: (len(tensors.basis.U), len(tensors.basis.V))
        for concept in concepts
        for name, tensors in concept.layers.items()
    }
    joint = {}
    for name, (rows, columns) in shapes.items():
        ups, downs = [], []
        for concept, weight in concepts.items():
            k = concept.factor_rank
            up, down = (
                concept.factors(name) if name in concept.layers else (torch.zeros(rows, k), torch.zeros(k, columns))
            )
            ups.append(up * weight)
            downs.append(down)
        joint[name] = Factors(torch.cat(ups, dim=1), torch.cat(downs))
    return joint


def check_same_base(concepts: list[Concept]) -> None:
    """Raises InputError where there is no concept, or where two were trained on different bases."""
    if not concepts:
        raise InputError("no concept given; name at least one")
    first = concepts[0]
    for other in concepts[1:]:
        if other.base != first.base:
            raise InputError(
                f"{first.name!r} was trained on base {_base(first)}, {other.name!r} on {_base(other)}; "
                "concepts add up on one base only, train them on the same"
            )


def provenance(concepts: Mapping[Concept, float]) -> dict[str, str]:
    """Metadata of anything made from concepts: what it is, its triggers, which concepts at which weights, on which base."""
    names = ", ".join(f"{concept.name} {weight:g}" for concept, weight in concepts.items())
    first = next(iter(concepts))
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
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


def _base(concept: Concept) -> str:
    return f"{concept.base} {concept.base_name}".rstrip()


def _kohya_metadata(concepts: Mapping[Concept, float], rank: int) -> dict[str, str]:
    return {
        "ss_output_name": "_".join(concept.name for concept in concepts),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": next(iter(concepts)).base_name,
    }


def _diffusers_key(name: str) -> str:
    component, _, path = name.partition(".")
    return f"{component}.{_clip_path(path) if component == 'text_encoder' else path}"


def _kohya_key(name: str) -> str:
    component, _, path = name.partition(".")
    if component == "text_encoder":
        return f"lora_te_{_clip_path(path)}".replace(".", "_")
    return f"lora_unet_{path}".replace(".", "_")


def _clip_path(path: str) -> str:
    """The path as all published files have it: transformers dropped `text_model.` from it in version 5."""
    return f"text_model.{path.removeprefix('text_model.')}"


def _content_hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].reshape(-1).view(torch.uint8).numpy())
    return f"0x{digest.hexdigest()}"
