"""Writes a base as one file in the original latent-diffusion layout, as Civitai's models come."""

import re

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from spectral_fusion.base.clip_tokenizer import clip_tokenizer
from spectral_fusion.base.sd import StableDiffusion
from tiny import TEXT_WIDTH, assemble, sd1_scheduler, tiny_text_encoder, tiny_vae

UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_key(name: str, per_level: int) -> str:
    """Such as `down_blocks.0.resnets.0.conv1.weight` -> `input_blocks.1.0.in_layers.2.weight`."""
    for old, new in UNET_ENDS.items():
        if name.startswith(f"{old}."):
            return name.replace(old, new, 1)
    match = re.fullmatch(r"(\w+?)_blocks?(?:\.(\d+))?\.(\w+)\.(\d+)\.(.*)", name)
    assert match, name
    side, level, kind, index, rest = match.groups()
    slot = {"resnets": 0, "attentions": 1}.get(kind)
    if kind == "resnets":
        old = next(part for part in UNET_RESNET if rest.startswith(f"{part}."))
        rest = rest.replace(old, UNET_RESNET[old], 1)
    if side == "mid":
        return f"middle_block.{2 * int(index) if kind == 'resnets' else 1}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{(int(level) + 1) * per_level}.0.{rest.replace('conv', 'op', 1)}"
    if kind == "upsamplers":
        return f"output_blocks.{(int(level) + 1) * per_level - 1}.{{sampler}}.{rest}"
    block = int(level) * per_level + int(index)
    return f"input_blocks.{block + 1}.{slot}.{rest}" if side == "down" else f"output_blocks.{block}.{slot}.{rest}"


def unet_tensors(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    per_level = unet.config.layers_per_block + 1
    tensors = {unet_key(name, per_level): tensor for name, tensor in unet.state_dict().items()}
    placed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block = name.split(".{sampler}")[0]
        crossed = any(key.startswith(f"{block}.1.transformer_blocks") for key in tensors)
        placed[name.format(sampler=2 if crossed else 1)] = tensor
    return placed


def vae_tensors(vae: AutoencoderKL) -> dict[str, Tensor]:
    levels = len(vae.config.block_out_channels)
    tensors: dict[str, Tensor] = {}
    for name, tensor in vae.state_dict().items():
        key = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
        key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", key)
        key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if "mid_block.attentions.0" in key:
            old = next(part for part in VAE_ATTENTION if f".{part}." in key)
            key = key.replace("mid_block.attentions.0", "mid.attn_1").replace(old, VAE_ATTENTION[old])
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        tensors[key] = tensor
    return tensors


def clip_tensors(text_encoder: CLIPTextModel) -> dict[str, Tensor]:
    return {name.removeprefix("text_model."): tensor for name, tensor in text_encoder.state_dict().items()}


def open_clip_tensors(text_encoder: CLIPTextModel) -> dict[str, Tensor]:
    """SD 2.x: OpenCLIP's names; queries, keys and values stacked; one more layer, which goes unused."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in clip_tensors(text_encoder).items():
        key = name.replace("encoder.layers.", "transformer.resblocks.").replace("self_attn.out_proj", "attn.out_proj")
        key = key.replace("embeddings.position_embedding.weight", "positional_embedding").replace("embeddings.", "")
        key = key.replace("layer_norm", "ln_").replace("fc1", "c_fc").replace("fc2", "c_proj")
        tensors[key.replace("final_ln_", "ln_final")] = tensor
    for key in [key for key in tensors if ".self_attn.q_proj." in key]:
        stack = torch.cat([tensors.pop(key.replace("q_proj", f"{letter}_proj")) for letter in "qkv"])
        tensors[key.replace("self_attn.q_proj.", "attn.in_proj_")] = stack
    if "text_projection.weight" in tensors:  # XL uses every layer
        return tensors | {"text_projection": tensors.pop("text_projection.weight").T, "logit_scale": torch.ones(())}
    layers = text_encoder.config.num_hidden_layers
    last = {key: value for key, value in tensors.items() if f"resblocks.{layers - 1}." in key}
    return tensors | {key.replace(f".{layers - 1}.", f".{layers}."): torch.zeros_like(t) for key, t in last.items()}


def ldm_tensors(base: StableDiffusion) -> dict[str, Tensor]:
    """The tensors of a base under the names of the original code, of SD 1.x or 2.x by its UNet's projections."""
    sd2 = base.unet.config.use_linear_projection
    text_prefix = "cond_stage_model.model." if sd2 else "cond_stage_model.transformer.text_model."
    parts = {
        "model.diffusion_model.": unet_tensors(base.unet),
        "first_stage_model.": vae_tensors(base.vae),
        text_prefix: (open_clip_tensors if sd2 else clip_tensors)(base.text_encoder),
    }
    return {prefix + name: tensor.contiguous() for prefix, part in parts.items() for name, tensor in part.items()}


def miniature(version: int = 1, seed: int = 0) -> StableDiffusion:
    """SD 1.5's or 2.1's own block structure, four levels and all, at reduced widths, with CLIP's whole vocabulary."""
    tokenizer = clip_tokenizer(pad_token="<|endoftext|>" if version == 1 else "!")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(32, 64, 64, 64),
            attention_head_dim=8 if version == 1 else (1, 1, 1, 1),
            cross_attention_dim=TEXT_WIDTH,
            use_linear_projection=version == 2,
        )
        vae = tiny_vae()
        text_encoder = tiny_text_encoder(tokenizer, heads=1, hidden_act="quick_gelu" if version == 1 else "gelu")
    scheduler = sd1_scheduler("epsilon" if version == 1 else "v_prediction")
    return StableDiffusion(assemble(unet, vae, text_encoder, tokenizer, scheduler))
