"""Settings that other tools write as JSON: SwarmUI, Fooocus, InvokeAI, ComfyUI. Their words become those of the format.

What they say and this program cannot do, such as LoRAs of other kinds, styles and refiners, comes back as phrases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from spectral_fusion.errors import InputError, shown
from spectral_fusion.picture.comfy import read_graph
from spectral_fusion.picture.said import Said, Settings, number_text
from spectral_fusion.reading import parse_json

LARGEST = 4 * 2**20  # characters; a graph of ComfyUI with everything in it takes one


def read_json_settings(text: str) -> Said:
    """Prompt, negative prompt, settings and what is left out, from JSON of whichever tool.

    Raises:
        InputError: it is not JSON, or of no tool that is known; the message names the tool where it can.
    """
    if len(text) > LARGEST:
        raise InputError(f"the picture's settings are {len(text)} characters long; at most {LARGEST} are read")
    said = parse_json(text, "the text of the picture's settings", lenient=True)  # ComfyUI writes NaN
    if not isinstance(said, dict):
        raise InputError("the picture's settings are JSON of no tool that is known here; enter them by hand")
    if isinstance(said.get("sui_image_params"), dict):
        return _swarm(said["sui_image_params"])
    if isinstance(said.get("image"), dict) and "prompt" in said["image"]:
        return _invoke({**said["image"], "model": said.get("model_weights", "")})
    if "positive_prompt" in said or "app_version" in said:
        return _invoke(said)
    if {"prompt", "uc", "scale"} <= said.keys():
        return _novel(said)
    if any(isinstance(node, dict) and "class_type" in node for node in said.values()):
        return read_graph(said)
    if isinstance(said.get("nodes"), list) and isinstance(said.get("links"), list):
        raise InputError("the picture holds a workflow of ComfyUI without its values; enter the settings by hand")
    lowered = {str(key).lower().replace(" ", "_"): value for key, value in said.items()}
    if "prompt" in lowered and ({"metadata_scheme", "base_model", "performance", "full_prompt"} & lowered.keys()):
        return _fooocus(lowered)
    raise InputError(
        f"the picture's settings are JSON of no tool that is known here (with {shown(', '.join(list(said)[:5]))}); "
        "enter them by hand"
    )


def _swarm(said: dict[str, Any]) -> Said:
    settings = Settings("SwarmUI", said)
    settings.take(Steps="steps", Seed="seed", Model="model", Sampler="sampler")
    settings.take(**{"CFG scale": "cfgscale", "Schedule type": "scheduler"})
    settings.size("width", "height")
    settings.loras(_pairs(settings.pop("loras"), settings.pop("loraweights")))
    settings.ignore("swarm_version", "date", "generation_time", "aspectratio", "images", "seedrange", "batchsize")
    return settings.said("prompt", "negativeprompt")


def _fooocus(said: dict[str, Any]) -> Said:
    settings = Settings("Fooocus", said)
    settings.take(Steps="steps", Seed="seed", Model="base_model", Sampler="sampler")
    settings.take(**{"CFG scale": "guidance_scale", "Schedule type": "scheduler", "Model hash": "base_model_hash"})
    if match := re.fullmatch(r"\D*(\d{1,6})\D+(\d{1,6})\D*", str(settings.pop("resolution"))):
        settings.found["Size"] = f"{match[1]}x{match[2]}"
    loras = settings.pop("loras")
    listed = loras if isinstance(loras, list) else []
    settings.loras((lora[0], lora[1]) for lora in listed if isinstance(lora, list) and len(lora) > 1)
    if settings.rest.get("refiner_model") in ("None", "", None):
        settings.ignore("refiner_model", "refiner_switch")
    if str(settings.rest.get("styles", "")) in ("", "[]", "()"):
        settings.ignore("styles")
    settings.ignore("full_prompt", "full_negative_prompt", "metadata_scheme", "version", "created_by", "vae")
    settings.ignore("performance", "fooocus_v2_expansion")
    return settings.said("prompt", "negative_prompt")


def _invoke(said: dict[str, Any]) -> Said:
    settings = Settings("InvokeAI", said)
    settings.take(Steps="steps", Seed="seed", Sampler="scheduler")
    settings.take(Sampler="sampler", **{"CFG scale": "cfg_scale"})
    settings.size("width", "height")
    model = settings.pop("model")
    name = (model.get("name") or model.get("model_name")) if isinstance(model, dict) else model
    settings.found["Model"] = str(name)[:200] if name else "unknown"
    loras = settings.pop("loras")
    settings.loras(_invoke_loras(loras if isinstance(loras, list) else []))
    settings.ignore("app_version", "rand_device", "generation_mode", "type", "positive_style_prompt", "vae")
    settings.ignore("negative_style_prompt", "seamless_x", "seamless_y", "ref_images", "canvas_v2_metadata")
    first = settings.rest.get("prompt")
    if isinstance(first, list):  # version 2: pieces with weights
        settings.rest["prompt"] = ", ".join(str(piece.get("prompt", "")) for piece in first if isinstance(piece, dict))
    return settings.said("positive_prompt" if "positive_prompt" in said else "prompt", "negative_prompt")


def _novel(said: dict[str, Any]) -> Said:
    settings = Settings("NovelAI", said)
    settings.take(Steps="steps", Seed="seed", Sampler="sampler")
    settings.take(**{"CFG scale": "scale", "Schedule type": "noise_schedule"})
    settings.size("width", "height")
    settings.ignore("signed_hash", "request_type", "version", "n_samples")
    return settings.said("prompt", "uc")


def _invoke_loras(loras: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    for lora in loras:
        if isinstance(lora, dict):
            model = lora.get("model") or lora.get("lora") or {}
            yield (
                (model.get("name") or model.get("model_name")) if isinstance(model, dict) else model,
                lora.get("weight"),
            )


def _pairs(names: Any, weights: Any) -> Iterable[tuple[Any, Any]]:
    names = names if isinstance(names, list) else []
    weights = weights if isinstance(weights, list) else []
    return [(name, number_text(weights[i]) if i < len(weights) else "1") for i, name in enumerate(names)]
