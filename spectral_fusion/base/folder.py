"""Loading a diffusers folder, or a repository of the hub, which diffusers reads alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

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
from spectral_fusion.reading import read_json

T = TypeVar("T")

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


# What diffusers, transformers and torch raise over settings and weights that are damaged, or of another kind than said.
DAMAGED = (OSError, ValueError, RuntimeError, TypeError, AttributeError, LookupError, SafetensorError)
LARGEST_CONFIG = 2**20  # bytes


def load_folder(folder: str, dtype: torch.dtype) -> DiffusionPipeline:
    """A folder or a hub id. The autoencoder comes in float32, to be rounded by the caller where it bears that.

    Raises:
        InputError: it is missing, damaged, pickled, quantised, or a pipeline of another kind.
    """
    try:
        name = DiffusionPipeline.load_config(folder).get("_class_name")
    except DAMAGED as error:
        raise InputError(unreadable(folder, error)) from error
    if name not in CLASSES:
        raise InputError(f"base {folder} is a {name}; give one of {', '.join(CLASSES)}{_hint(str(name))}")
    _check_not_quantised(folder)
    kind, left_out = CLASSES[name]
    dtypes = {"default": dtype, "vae": torch.float32}

    def load(variant: str | None) -> DiffusionPipeline:
        loaded = kind.from_pretrained(folder, dtype=dtypes, variant=variant, use_safetensors=True, **left_out)
        _check_whole(folder, loaded)
        return loaded

    try:
        return either_variant(load)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(unreadable(folder, error)) from error


def either_variant(load: Callable[[str | None], T]) -> T:
    """What `load` returns of a repository's plain files, else of its half-precision ones: many hold those alone.

    Raises what it raised of the plain ones, or an InputError at once.
    """
    try:
        return load(None)
    except InputError:
        raise
    except DAMAGED as error:
        try:
            return load("fp16")
        except InputError:
            raise
        except DAMAGED:
            raise error from None


def _check_whole(folder: str, loaded: DiffusionPipeline) -> None:
    """Raises InputError where a weight is in none of the files: it would stay without values."""
    for part, model in loaded.components.items():
        missing = [name for name, weight in getattr(model, "named_parameters", dict)() if weight.is_meta]
        if missing:
            raise InputError(f"base {folder} lacks {len(missing)} weights, first {part}.{missing[0]}; get it again")


def _hint(name: str) -> str:
    if "Img2Img" in name and "XL" in name:
        return "; a refiner cannot be trained, give the base model"
    return "; give a text-to-image model" if "Inpaint" in name or "Pix2Pix" in name else ""


def _check_not_quantised(folder: str) -> None:
    for file in Path(folder).glob("*/config.json"):
        settings = read_json(file, largest=LARGEST_CONFIG)
        config = settings.get("quantization_config") if isinstance(settings, dict) else None
        if config:
            tool = config.get("quant_method") if isinstance(config, dict) else None
            raise InputError(
                f"base {folder} is quantised by {tool or 'some tool'} ({file.parent.name}); its "
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
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"base {folder} cannot be loaded ({said}); get it again"
