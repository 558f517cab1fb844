"""The sizes of toybox's models: Stable Diffusion's own classes, made small."""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from spectral_fusion.toybox.paint import SIZE
from spectral_fusion.toybox.tokens import MAX_LENGTH, make_tokenizer
from spectral_fusion.toybox.world import BACKGROUNDS, CLASSES, COLORS

TEXT_WIDTH = 128
LATENT_CHANNELS = 16
LOGITS = [1 + len(CLASSES)] * 3 + [1 + len(COLORS)] * 3 + [len(BACKGROUNDS)]


def _text_config() -> dict:
    tokenizer = make_tokenizer()
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "projection_dim": TEXT_WIDTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
        "attention_dropout": 0.0,
    }


def _vision_config(projection: int) -> dict:
    return {
        "image_size": SIZE,
        "patch_size": 8,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "projection_dim": projection,
    }


def make_vae() -> AutoencoderKL:
    """64 x 64 x 3 pictures to 8 x 8 x 16 latents: the same eightfold reduction as Stable Diffusion's."""
    widths = (16, 32, 64, 96)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
    )


def make_text_encoder() -> CLIPTextModel:
    """The text encoder of the pipeline: trained together with the denoiser."""
    return CLIPTextModel(CLIPTextConfig(**_text_config()))


def make_unet() -> UNet2DConditionModel:
    """Two levels, 8 x 8 and 4 x 4, with cross-attention at both."""
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(128, 192),
        down_block_types=["CrossAttnDownBlock2D"] * 2,
        up_block_types=["CrossAttnUpBlock2D"] * 2,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(4, 6),  # the number of heads: diffusers keeps the historical name
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def make_text_scorer() -> CLIPModel:
    """The image-text scorer: plays CLIP's part in evaluations."""
    return CLIPModel(
        CLIPConfig(text_config=_text_config(), vision_config=_vision_config(TEXT_WIDTH), projection_dim=TEXT_WIDTH)
    )


def make_identity_encoder() -> CLIPVisionModelWithProjection:
    """The identity encoder: plays DINO's part in evaluations."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**_vision_config(128)))


def make_classifier() -> CLIPVisionModelWithProjection:
    """Reads a drawn scene: its projection is the logits of `LOGITS`."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**_vision_config(sum(LOGITS))))


def split_logits(logits: Tensor) -> tuple[Tensor, ...]:
    """(batch, sum(LOGITS)) to one tensor for each label: three classes, three colours, the background."""
    return logits.split(LOGITS, dim=-1)
