"""Graphs of ComfyUI: the settings of the one sampler, found by following its inputs."""

from __future__ import annotations

from typing import Any

from spectral_fusion.errors import InputError, shown
from spectral_fusion.picture.said import Said, Settings, number_text

FARTHEST = 64  # nodes from one to another
TEXTS = ("text", "text_g", "string", "value", "prompt", "wildcard_text", "populated_text", "t5xxl")
NOTHING = "ConditioningZeroOut"  # stands for an empty prompt
LATENTS = ("latent_image", "samples", "latent", "pixels")
GOES_ON = ("conditioning", "conditioning_1", "conditioning_to", "positive", "clip", "guider", "text", "string")
PLAIN = (
    "KSampler",
    "CLIPTextEncode",
    "EmptyLatentImage",
    "SaveImage",
    "PreviewImage",
    "CheckpointLoaderSimple",
    "VAEDecode",
    "KSamplerAdvanced",
    "VAELoader",
    "CLIPSetLastLayer",
    "EmptySD3LatentImage",
    NOTHING,
    "Note",
    "Reroute",
    "PrimitiveNode",
    "String",
    "PrimitiveString",
    "PrimitiveStringMultiline",
)

Graph = dict[str, Any]


def read_graph(graph: Graph) -> Said:
    """Prompt, negative prompt, settings and what is left out, of a graph in the form in which ComfyUI runs it.

    Raises:
        InputError: it has no sampler that makes a picture from noise, or several.
    """
    nodes = {str(key): node for key, node in graph.items() if isinstance(node, dict) and "class_type" in node}
    samplers = [node for node in nodes.values() if "sampler_name" in _inputs(node) and _has_text(nodes, node)]
    if len(samplers) > 1:  # a second pass, such as an upscaling, begins with the pixels of the first
        samplers = [node for node in samplers if _size(nodes, node)] or samplers
    if len(samplers) != 1:
        raise InputError(
            f"the picture's graph of ComfyUI has {len(samplers)} samplers that make a picture from noise, and one can "
            "be read; enter the settings by hand"
        )
    inputs = {key: _constant(nodes, value) for key, value in _inputs(samplers[0]).items()}
    settings = Settings("ComfyUI", {})
    settings.rest = {
        key: value for key, value in inputs.items() if key in ("steps", "cfg", "sampler_name", "scheduler")
    }
    settings.rest["seed"] = inputs.get("seed", inputs.get("noise_seed"))
    settings.take(Steps="steps", Seed="seed", Sampler="sampler_name")
    settings.take(**{"CFG scale": "cfg", "Schedule type": "scheduler"})
    settings.found |= _size(nodes, samplers[0])
    if (denoise := inputs.get("denoise", 1)) not in (1, None):
        settings.lost.append(f"denoise: {shown(denoise, 20)}")
    _walk_models(nodes, settings)
    settings.rest = {
        "positive": _text(nodes, _inputs(samplers[0]).get("positive")),
        "negative": _text(nodes, _inputs(samplers[0]).get("negative")),
    }
    return settings.said("positive", "negative")


def _walk_models(nodes: Graph, settings: Settings) -> None:
    """The checkpoint, and each LoRA and other node that changes the picture and has no counterpart here."""
    for node in nodes.values():
        kind, inputs = str(node["class_type"]), _inputs(node)
        if isinstance(name := inputs.get("ckpt_name", inputs.get("unet_name")), str):
            settings.found.setdefault("Model", name[:200])
        elif isinstance(name := inputs.get("lora_name"), str):
            settings.loras([(name, inputs.get("strength_model", 1))])
        elif kind not in PLAIN and "sampler_name" not in inputs:
            settings.lost.append(f"node {shown(kind, 60)}")
    settings.lost = list(dict.fromkeys(settings.lost))


def _inputs(node: Any) -> dict[str, Any]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _follow(nodes: Graph, value: Any) -> Any:
    """The node that an input comes from; None where it is a value."""
    linked = isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int))
    return nodes.get(str(value[0])) if linked else None


def _constant(nodes: Graph, value: Any) -> Any:
    """An input's value, or that of the one-value node it comes from."""
    node = _follow(nodes, value)
    if node is None:
        return None if isinstance(value, (list, dict)) else value
    values = [item for item in _inputs(node).values() if isinstance(item, (int, float, str))]
    return values[0] if values else None


def _has_text(nodes: Graph, node: Any) -> bool:
    return _follow(nodes, _inputs(node).get("positive")) is not None


def _text(nodes: Graph, value: Any) -> str:
    """The prompt at the end of a chain of conditionings."""
    for _ in range(FARTHEST):
        node = _follow(nodes, value)
        if node is None:
            return value if isinstance(value, str) else ""
        inputs = _inputs(node)
        if node["class_type"] == NOTHING:
            return ""
        if text := next((inputs[key] for key in TEXTS if isinstance(inputs.get(key), str)), None):
            return text
        value = next((inputs[key] for key in (*TEXTS, *GOES_ON) if isinstance(inputs.get(key), list)), None)
    return ""


def _size(nodes: Graph, sampler: Any) -> dict[str, str]:
    """The size of the empty latents that a sampler begins with; empty where it begins with something else."""
    node = sampler
    for _ in range(FARTHEST):
        inputs = _inputs(node)
        node = next((found for key in LATENTS if (found := _follow(nodes, inputs.get(key)))), None)
        if node is None or "sampler_name" in _inputs(node):
            return {}
        sides = [_constant(nodes, _inputs(node).get(key)) for key in ("width", "height")]
        if str(node["class_type"]).startswith("Empty") and all(isinstance(side, int) for side in sides):
            return {"Size": f"{number_text(sides[0])}x{number_text(sides[1])}"}
    return {}
