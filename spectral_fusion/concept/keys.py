"""What other programs call an adapted layer in a LoRA file.

Layers are named here as diffusers names its modules: `unet.down_blocks.1.attentions.0.….to_k`, `text_encoder_2.…`.
kohya's scripts train XL on the original code's UNet, so its files, which ComfyUI and Forge read, have the original
block names: `lora_unet_input_blocks_4_1_…`. The names are those of kohya's `sdxl_model_util` and of diffusers' loader.
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from spectral_fusion.errors import InputError

PER_LEVEL = 3  # blocks a level in XL's original layout: two of a resnet, then one that changes the size
XL_CROSSED = ("0", "1")  # its levels on the way up that have attention
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
RESIZE = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
TEXT_ENCODERS = {"text_encoder": "te1", "text_encoder_2": "te2"}
LEFT_BY_KOHYA = tuple(f"unet.{end}" for end in ENDS)


class Keys(NamedTuple):
    """Names of a layer's tensors; diffusers' files carry no alpha."""

    down: str
    up: str
    alpha: str | None


def diffusers_keys(layer: str) -> Keys:
    """As diffusers' `save_lora_weights` writes them."""
    part, _, path = layer.partition(".")
    if part in TEXT_ENCODERS:
        key = f"{part}.{clip_path(path)}.lora_linear_layer"
        return Keys(f"{key}.down.weight", f"{key}.up.weight", None)
    return Keys(f"{layer}.lora_A.weight", f"{layer}.lora_B.weight", None)


def kohya_keys(layer: str, family: str) -> Keys:
    """As kohya's scripts write them.

    Args:
        family: "sdxl" for the original block names and numbered text encoders; else as for Stable Diffusion 1.x.

    Raises:
        InputError: the family is one of transformers, whose layers have other shapes there.
    """
    part, _, path = layer.partition(".")
    if part not in ("unet", *TEXT_ENCODERS):
        raise InputError(
            f"LoRAs of the family {family} are not written in kohya's names; write diffusers', which ComfyUI reads too"
        )
    if part in TEXT_ENCODERS:
        key = f"lora_{TEXT_ENCODERS[part] if family == 'sdxl' else 'te'}_{clip_path(path)}"
    else:
        key = f"lora_unet_{original_path(path) if family == 'sdxl' else path}"
    key = key.replace(".", "_")
    return Keys(f"{key}.lora_down.weight", f"{key}.lora_up.weight", f"{key}.alpha")


def clip_path(path: str) -> str:
    """The path as all published files have it: transformers dropped `text_model.` from it in version 5."""
    return f"text_model.{path.removeprefix('text_model.')}"


def original_path(path: str) -> str:
    """A module of diffusers' XL UNet under its name in the original code.

    `down_blocks.1.attentions.0.proj_in` -> `input_blocks.4.1.proj_in`.
    """
    found = original_name(path, per_level=PER_LEVEL, crossed=XL_CROSSED)
    if found is None:
        raise ValueError(f"{path} is no layer of a Stable Diffusion XL UNet")
    return found


def original_name(path: str, *, per_level: int, crossed: Collection[str]) -> str | None:
    """A module of a diffusers UNet under its name in the original code; None where that has no name for it.

    Args:
        per_level: blocks a level in the original layout.
        crossed: levels on the way up that have attention.
    """
    if path in ENDS:
        return ENDS[path]
    if middle := MIDDLE.fullmatch(path):
        kind, index, rest = middle.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{RESNET.get(rest, rest)}"
    if block := BLOCK.fullmatch(path):
        side, level, kind, index, rest = block.groups()
        number = int(level) * per_level + int(index) + (side == "down")
        name = "input_blocks" if side == "down" else "output_blocks"
        return f"{name}.{number}.{int(kind == 'attentions')}.{RESNET.get(rest, rest)}"
    if resize := RESIZE.fullmatch(path):
        side, level = resize.groups()
        if side == "down":
            return f"input_blocks.{(int(level) + 1) * per_level}.0.op"
        return f"output_blocks.{(int(level) + 1) * per_level - 1}.{2 if level in crossed else 1}.conv"
    return None


def left_by_kohya(layers: Iterable[str]) -> list[str]:
    """The layers that kohya's scripts do not load: they adapt attention, resnets and what changes the size."""
    return [layer for layer in layers if layer in LEFT_BY_KOHYA]
