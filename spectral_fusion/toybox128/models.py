"""The sizes of the second edition's models: Stable Diffusion's own classes, made small."""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler

from spectral_fusion.toybox128.backgrounds import SIZE

LATENT_CHANNELS = 12


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
