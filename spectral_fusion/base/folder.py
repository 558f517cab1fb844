"""Loading a diffusers folder, or a repository of the hub, which diffusers reads alike."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    Flux2KleinPipeline,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    ZImagePipeline,
)
from safetensors import SafetensorError

from spectral_fusion.errors import InputError

CLASSES: dict[str, tuple[type[DiffusionPipeline], dict[str, Any]]] = {
    "StableDiffusionPipeline": (
        StableDiffusionPipeline,
        {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None, "image_encoder": None},
    ),
    "StableDiffusionXLPipeline": (
        StableDiffusionXLPipeline,
        {"feature_extractor": None, "image_encoder": None, "add_watermarker": False},
    ),
    "StableDiffusion3Pipeline": (StableDiffusion3Pipeline, {"feature_extractor": None, "image_encoder": None}),
    "FluxPipeline": (FluxPipeline, {"feature_extractor": None, "image_encoder": None}),
    "Flux2KleinPipeline": (Flux2KleinPipeline, {}),
    "ZImagePipeline": (ZImagePipeline, {}),
}
"""Pipelines that are loaded here, and what is left out of each."""


def load_folder(folder: str, dtype: torch.dtype) -> DiffusionPipeline:
    """A folder or a hub id. The autoencoder comes in float32, to be rounded by the caller where it bears that.

    Raises:
        InputError: it is missing, damaged, pickled, quantised, or a pipeline of another kind.
    """
    try:
        name = DiffusionPipeline.load_config(folder).get("_class_name")
    except (OSError, ValueError) as error:
        raise InputError(unreadable(folder, error)) from error
    if name not in CLASSES:
        raise InputError(f"base {folder} is a {name}; give one of {', '.join(CLASSES)}{_hint(str(name))}")
    _check_not_quantised(folder)
    kind, left_out = CLASSES[name]
    first: Exception | None = None
    for variant in (None, "fp16"):  # many repositories hold the half-precision files alone
        try:
            dtypes = {"default": dtype, "vae": torch.float32}
            return kind.from_pretrained(folder, dtype=dtypes, variant=variant, use_safetensors=True, **left_out)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            first = first or error
    assert first is not None
    raise InputError(unreadable(folder, first)) from first


def _hint(name: str) -> str:
    if "Img2Img" in name and "XL" in name:
        return "; a refiner cannot be trained, give the base model"
    return "; give a text-to-image model" if "Inpaint" in name or "Pix2Pix" in name else ""


def _check_not_quantised(folder: str) -> None:
    for file in Path(folder).glob("*/config.json"):
        config = json.loads(file.read_text(encoding="utf-8")).get("quantization_config")
        if config:
            raise InputError(
                f"base {folder} is quantised by {config.get('quant_method', 'some tool')} ({file.parent.name}); its "
                "weights cannot be decomposed, give the folder that it was quantised from"
            )


def unreadable(folder: str, error: Exception) -> str:
    """One line on why a folder or repository could not be loaded, and what to do."""
    path = Path(folder)
    if not path.is_dir():
        return f"base {folder} is not in the hub's cache, and not to be had; check the id, network and HF_HUB_OFFLINE"
    if not (path / "model_index.json").is_file():
        return f"base {folder} is no diffusers folder (model_index.json is missing); give the folder that holds it"
    pickled = [p.name for p in path.glob("*/*.bin") if not list(p.parent.glob("*.safetensors"))]
    if pickled:
        return f"base {folder} holds pickled weights ({pickled[0]}), which are never opened; get its .safetensors files"
    return f"base {folder} cannot be loaded ({str(error).strip().splitlines()[0][:200]}); get it again"
