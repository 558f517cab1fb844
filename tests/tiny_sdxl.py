"""A random Stable Diffusion XL in miniature: its own classes and block structure, in a second."""

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tiny import tiny_tokenizer

WIDTHS = (64, 128)  # of the two text encoders
TIME_WIDTH = 8  # of each of the six size conditions


def tiny_sdxl(
    seed: int = 0,
    prediction_type: str = "epsilon",
    *,
    zero_snr: bool = False,
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer] | None = None,
) -> StableDiffusionXLPipeline:
    """A random pipeline on the CPU, in eval mode; the same arguments give the same weights.

    Pictures are 32 px, latents 16x16x4. Three levels as XL has them: the first without attention, then 1 and 2
    transformer blocks (XL: 2 and 10).
    """
    first, second = tokenizers or (tiny_tokenizer(), _padded_by_another(tiny_tokenizer()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, vae = _unet(), _vae()
        text_encoder = CLIPTextModel(_text_config(first, WIDTHS[0], "quick_gelu"))
        text_encoder_2 = CLIPTextModelWithProjection(_text_config(second, WIDTHS[1], "gelu"))
    pipeline = StableDiffusionXLPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        text_encoder_2=text_encoder_2.eval(),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet.eval(),
        scheduler=_scheduler(prediction_type, zero_snr),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _padded_by_another(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    tokenizer.pad_token = "!"
    return tokenizer


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        layers_per_block=2,
        attention_head_dim=(1, 1, 1),
        use_linear_projection=True,
        cross_attention_dim=sum(WIDTHS),
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=WIDTHS[1] + 6 * TIME_WIDTH,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=32,
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=0.13025,
        force_upcast=True,
    )


def _text_config(tokenizer: CLIPTokenizer, width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _scheduler(prediction_type: str, zero_snr: bool) -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        steps_offset=1,
        timestep_spacing="trailing" if zero_snr else "leading",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
    )
