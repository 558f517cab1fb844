"""The architectures of Stable Diffusion 1.5 with random weights: what the benchmarks measure on."""

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from spectral_fusion.base.clip_tokenizer import clip_tokenizer
from spectral_fusion.base.interface import Base
from spectral_fusion.base.load import base_of
from spectral_fusion.base.presets import ATTENTION

UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SMALL_UNET = UNET | {"block_out_channels": (64, 128, 256, 256)}
CLIP_VIT_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}


def unet(*, small: bool = False) -> UNet2DConditionModel:
    """The UNet, or one a fifth as wide for a quick look."""
    torch.manual_seed(0)
    return UNet2DConditionModel(**(SMALL_UNET if small else UNET))


def text_encoder(*, small: bool = False) -> CLIPTextModel:
    """CLIP ViT-L's text encoder, or its first two layers for a quick look."""
    torch.manual_seed(0)
    return CLIPTextModel(CLIPTextConfig(**(CLIP_VIT_L | ({"num_hidden_layers": 2} if small else {}))))


def base(device: str, dtype: torch.dtype, *, small: bool = False) -> Base:
    """A base without an autoencoder, with memory for the attention projections and the word vectors alone."""
    with torch.device("meta"):
        models = {"unet": unet(small=small), "text_encoder": text_encoder(small=small)}
    found = base_of(
        StableDiffusionPipeline(
            **models,
            vae=None,
            tokenizer=clip_tokenizer(),
            scheduler=PNDMScheduler(steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )
    real = [layer for name, layer in found.layers().items() if name.endswith(ATTENTION)]
    for module in (*real, *(text.embedding for text in found.texts.values())):
        module.weight = nn.Parameter(0.02 * torch.randn(module.weight.shape, device=device, dtype=dtype))
    return found
