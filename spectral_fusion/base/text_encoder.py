"""Text encoders out of a single file, in the names of transformers or of OpenCLIP."""

import re

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from spectral_fusion.base.original import TextLayout, text_config
from spectral_fusion.identify import Header

OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "text_projection.weight": "text_projection",
}
STACKED = re.compile(r"self_attn\.([qkv])_proj\.(weight|bias)$")


def load_text_encoder(
    header: Header, layout: TextLayout, dtype: torch.dtype
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """One text encoder of the file, in eval mode.

    Raises:
        SafetensorError: a tensor is missing.
        RuntimeError: a tensor has another shape.
    """
    kind = CLIPTextModelWithProjection if layout.projected else CLIPTextModel
    with init_empty_weights():
        model = kind(CLIPTextConfig(**text_config(header, layout)))
    with safe_open(header.path, framework="pt") as file:
        state = {}
        for name in model.state_dict():
            key, part = original_name(name.removeprefix("text_model."), layout)
            state[name] = _part(file.get_tensor(key), part, key).to(dtype).contiguous()
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(True)


def original_name(name: str, layout: TextLayout) -> tuple[str, int | None]:
    """The key of a tensor in the file, and which third of it where queries, keys and values are stacked."""
    part = None
    if layout.open_clip:
        if stacked := STACKED.search(name):
            part = "qkv".index(stacked[1])
            name = name.replace(stacked[0], f"attn.in_proj_{stacked[2]}")
        for ours, theirs in OPEN_CLIP.items():
            name = name.replace(ours, theirs)
    return layout.prefix + name, part


def _part(tensor: Tensor, part: int | None, key: str) -> Tensor:
    if key.endswith("text_projection"):
        return tensor.T  # OpenCLIP multiplies from the right
    return tensor if part is None else tensor.chunk(3)[part]
