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

from spectral_fusion.base.damage import class_name, loading, read_settings
from spectral_fusion.errors import InputError, shown
from spectral_fusion.identify import read_header
from spectral_fusion.identify.quantised import quantised_by

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

INDEX = "model_index.json"
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")
SCALES = (1e-4, 1e4)  # of an autoencoder's latents; published ones lie between 0.1 and 2


def load_folder(folder: str, dtype: torch.dtype) -> DiffusionPipeline:
    """A folder or a hub id. The autoencoder comes in float32, to be rounded by the caller where it bears that.

    Raises:
        InputError: it is missing, damaged, pickled, quantised, or a pipeline of another kind.
    """
    with loading("base", folder, INDEX):
        local = Path(folder, INDEX)
        config = read_settings(local) if local.is_file() else DiffusionPipeline.load_config(folder)
        name = class_name(config, "base", folder)
        if name not in CLASSES:
            raise InputError(f"base {folder} is a {name}; give one of {', '.join(CLASSES)}{_hint(name)}")
        _check_not_quantised(folder)
        kind, left_out = CLASSES[name]
        dtypes = {"default": dtype, "vae": torch.float32}

        def load(variant: str | None) -> DiffusionPipeline:
            loaded = kind.from_pretrained(folder, dtype=dtypes, variant=variant, use_safetensors=True, **left_out)
            _check_whole(folder, loaded)
            return loaded

        loaded = either_variant(load)
        _check_values(folder, loaded)
        return loaded


def either_variant(load: Callable[[str | None], T]) -> T:
    """What `load` returns of a repository's plain files, else of its half-precision ones: many hold those alone.

    Raises what it raised of the plain ones, or an InputError at once.
    """
    try:
        return load(None)
    except InputError:
        raise
    except Exception as error:  # see `damage.loading`
        try:
            return load("fp16")
        except InputError:
            raise
        except Exception:
            raise error from None


def _check_whole(folder: str, loaded: DiffusionPipeline) -> None:
    """Raises InputError where weights are quantised, or in none of the files: those would stay without values."""
    for part, model in loaded.components.items():
        if (quantizer := getattr(model, "hf_quantizer", None)) is not None:
            raise _quantised(folder, type(quantizer).__name__, part)
        missing = [name for name, weight in getattr(model, "named_parameters", dict)() if weight.is_meta]
        if missing:
            raise InputError(f"base {folder} lacks {len(missing)} weights, first {part}.{missing[0]}; get it again")


def _hint(name: str) -> str:
    if "Img2Img" in name and "XL" in name:
        return "; a refiner cannot be trained, give the base model"
    return "; give a text-to-image model" if "Inpaint" in name or "Pix2Pix" in name else ""


def _check_values(folder: str, loaded: DiffusionPipeline) -> None:
    """Settings that are read only when a picture is made. Raises InputError where one cannot be used."""
    scheduler, vae = loaded.scheduler.config, loaded.vae.config
    predicts = scheduler.get("prediction_type", PREDICTIONS[0])
    if predicts not in PREDICTIONS:
        raise InputError(f"base {folder} predicts {shown(predicts, 40)}, which is not known; get it again")
    for name in ("scaling_factor", "shift_factor"):
        scale = vae.get(name)
        number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        least = SCALES[0] if name == "scaling_factor" else -SCALES[1]
        if scale is not None and not (number and least <= scale <= SCALES[1]):
            raise InputError(f"base {folder} has a {name} of {shown(scale, 40)} (vae); get it again")
    for part, tokenizer in loaded.components.items():
        if part.startswith("tokenizer"):
            _settle_length(tokenizer, loaded.components.get(part.replace("tokenizer", "text_encoder")))


def _settle_length(tokenizer: Any, encoder: Any) -> None:
    """A CLIP tokenizer whose settings are lost knows no length: its encoder's positions are the length."""
    positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
    if not type(encoder).__name__.startswith("CLIP") or not isinstance(positions, int):
        return
    length = tokenizer.model_max_length
    if type(length) is not int or not 2 < length <= positions:
        tokenizer.model_max_length = positions


def _check_not_quantised(folder: str) -> None:
    """Of a folder its settings and headers tell; a repository of the hub is looked at when it is loaded."""
    for file in Path(folder).glob("*/config.json"):
        config = read_settings(file).get("quantization_config")
        if config:
            tool = config.get("quant_method") if isinstance(config, dict) else None
            raise _quantised(folder, tool or "some tool", file.parent.name)
    for file in Path(folder).glob("*/*.safetensors"):
        if tool := quantised_by(read_header(file, "base")):
            raise _quantised(folder, tool, file.parent.name)


def _quantised(folder: str, tool: str, part: str) -> InputError:
    return InputError(
        f"base {folder} is quantised by {tool} ({part}); its weights cannot be decomposed, give the folder that it was "
        "quantised from"
    )
