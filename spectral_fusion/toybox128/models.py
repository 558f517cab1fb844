"""The sizes of the second edition's models: Stable Diffusion's own classes, made small."""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    ResNetConfig,
    ResNetForImageClassification,
)

from spectral_fusion.toybox128.backgrounds import SIZE
from spectral_fusion.toybox128.tokens import MAX_LENGTH, make_tokenizer

LATENT_CHANNELS = 12
TEXT_WIDTH = 192
WIDTHS = (64, 160, 256)


def make_vae(widths: tuple[int, ...] = (16, 32, 64, 96)) -> AutoencoderKL:
    """128 x 128 x 3 pictures to 16 x 16 x 12 latents: the same eightfold reduction as Stable Diffusion's."""
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
    tokenizer = make_tokenizer()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=6,
            max_position_embeddings=MAX_LENGTH,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
            attention_dropout=0.0,
        )
    )


def make_unet(widths: tuple[int, ...] = WIDTHS) -> UNet2DConditionModel:
    """Three levels, 16 x 16, 8 x 8 and 4 x 4, with cross-attention at each; a narrow top is what makes it fast."""
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=widths,
        down_block_types=["CrossAttnDownBlock2D"] * len(widths),
        up_block_types=["CrossAttnUpBlock2D"] * len(widths),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=tuple(width // 32 for width in widths),  # the number of heads: diffusers keeps the old name
        norm_num_groups=16,
    )


def make_vision(size: int, outputs: int) -> CLIPVisionModelWithProjection:
    """A scorer: a vision transformer on patches of 8 pixels, with so many outputs."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            image_size=size,
            patch_size=8,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=5,
            num_attention_heads=4,
            projection_dim=outputs,
        )
    )


def make_reader(outputs: int) -> ResNetForImageClassification:
    """A scorer of single things: convolutions learn small marks from far fewer pictures than a transformer does."""
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=48,
            hidden_sizes=[48, 96, 160, 256],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            num_labels=outputs,
        )
    )
