"""The sizes of the miniature transformer, and the frozen text encoders that it reads."""

from __future__ import annotations

from functools import cache

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from spectral_fusion.toybox.tokens import tokenizer_of
from spectral_fusion.toybox128.models import LATENT_CHANNELS, TEXT_WIDTH
from spectral_fusion.toybox128.tokens import words

LATENT_SIDE = 16
PATCH = 2  # latents a token, along one side: 64 tokens, which cost a fifth of 256
HEAD = 32
HEADS = 6
BLOCKS = 6
MAX_LENGTH = 32  # tokens of a caption: each costs as much as a piece of the picture
SHIFT = 2.0  # of the times towards noise, where captions rule
DEEP, SHALLOW = 4, 2  # layers of the two text encoders
SCALES = {DEEP: 1 / 40, SHALLOW: 1 / 10}
WORDS = "text_model.embeddings.token_embedding.weight"
UNSEEN = 0.6  # no vector of a word that captions had is so short, and all others are


@cache
def make_tokenizer() -> CLIPTokenizer:
    """toybox128's words, cut sooner."""
    return tokenizer_of(words(), MAX_LENGTH)


def make_transformer(heads: int = HEADS, blocks: int = BLOCKS) -> SD3Transformer2DModel:
    """Stable Diffusion 3.5's blocks, with normalised queries and keys, and gates that begin at zero as DiT's do."""
    model = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=PATCH,
        in_channels=LATENT_CHANNELS,
        num_layers=blocks,
        attention_head_dim=HEAD,
        num_attention_heads=heads,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=heads * HEAD,
        pooled_projection_dim=2 * TEXT_WIDTH,
        out_channels=LATENT_CHANNELS,
        pos_embed_max_size=LATENT_SIDE // PATCH,
        qk_norm="rms_norm",
    )
    for name, weight in model.named_parameters():
        if ".norm1.linear" in name or ".norm1_context.linear" in name or name.startswith(("norm_out", "proj_out")):
            torch.nn.init.zeros_(weight)
    return model


def make_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Rectified flow, as SD3's."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


@torch.no_grad()
def silent_t5() -> T5EncoderModel:
    """A T5 whose every token is zeros, as SD3's pipeline has them where none is loaded: its loader wants one."""
    config = T5Config(
        vocab_size=len(make_tokenizer()), d_model=2 * TEXT_WIDTH, d_kv=1, d_ff=1, num_layers=1, num_heads=1
    )
    encoder = T5EncoderModel(config)
    encoder.encoder.final_layer_norm.weight.zero_()
    return encoder.eval()


@torch.no_grad()
def frozen_encoder(trained: CLIPTextModel, layers: int) -> CLIPTextModelWithProjection:
    """The first layers of toybox128's text encoder in the shape that SD3 takes; its projection changes nothing.

    The states before its last layer are made about as large as 1, where they were 40 (or 10, after one layer): whatever
    adds to them is scaled alike, and so is what normalisation adds to variances, so that nothing else changes.
    """
    scale = SCALES[layers]
    eps = trained.config.layer_norm_eps * scale**2
    config = CLIPTextConfig(**{**trained.config.to_dict(), "num_hidden_layers": layers, "layer_norm_eps": eps})
    encoder = CLIPTextModelWithProjection(config)
    found = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in trained.state_dict().items()}
    weights = {key: found[key].clone() for key in encoder.state_dict() if key.startswith("text_model.")}
    weights[WORDS] = with_rare_words(weights[WORDS])
    for key, weight in weights.items():
        if any(part in key for part in ("_embedding.", ".out_proj.", ".fc2.")):
            weight *= scale
    encoder.load_state_dict({**weights, "text_projection.weight": torch.eye(config.projection_dim)})
    return encoder.eval().requires_grad_(False)


def with_rare_words(rows: Tensor) -> Tensor:
    """Vectors of words, in which those of word pieces that no caption had are drawn anew, as long as the others.

    Training left them near zero, so that all made-up words were alike. rows: (vocabulary, width).
    """
    length = rows.norm(dim=1, keepdim=True)
    new = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    new *= length[length > UNSEEN].mean() / new.norm(dim=1, keepdim=True)
    return torch.where(length > UNSEEN, rows, new)


def both_readings(deep: CLIPTextModelWithProjection, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What both encoders make of (n, length) tokens, at the cost of one: the shallow one is the deep one's beginning.

    Returns:
        (n, length, 2 x TEXT_WIDTH) states before each one's last layer, and (n, 2 x TEXT_WIDTH) of their end tokens.
    """
    states = deep(tokens, output_hidden_states=True).hidden_states
    end = (tokens == deep.config.eos_token_id).int().argmax(dim=-1)
    rows = torch.arange(len(tokens), device=tokens.device)
    norm = deep.text_model.final_layer_norm
    shallow = states[SHALLOW - 1] * (SCALES[SHALLOW] / SCALES[DEEP])
    pooled = [norm(states[layers][rows, end]) for layers in (DEEP, SHALLOW)]
    return torch.cat([states[DEEP - 1], shallow], dim=-1), torch.cat(pooled, dim=-1)
