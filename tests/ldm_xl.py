"""Writes a Stable Diffusion XL pipeline as one file in the original layout, as Civitai's models come."""

from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from ldm import clip_tensors, open_clip_tensors, unet_tensors, vae_tensors
from spectral_fusion.base.clip_tokenizer import clip_tokenizer
from tiny_sdxl import tiny_sdxl


def xl_tensors(pipeline: StableDiffusionXLPipeline) -> dict[str, Tensor]:
    """The tensors of a pipeline under the names of the original code."""
    parts = {
        "model.diffusion_model.": unet_tensors(pipeline.unet),
        "first_stage_model.": vae_tensors(pipeline.vae),
        "conditioner.embedders.0.transformer.text_model.": clip_tensors(pipeline.text_encoder),
        "conditioner.embedders.1.model.": open_clip_tensors(pipeline.text_encoder_2),
    }
    return {prefix + name: tensor.contiguous() for prefix, part in parts.items() for name, tensor in part.items()}


def miniature_xl(
    seed: int = 0, prediction_type: str = "epsilon", *, zero_snr: bool = False
) -> StableDiffusionXLPipeline:
    """XL's own block structure at reduced widths, with CLIP's whole vocabulary in both text encoders."""
    tokenizers = clip_tokenizer(), clip_tokenizer(pad_token="!")
    return tiny_sdxl(seed, prediction_type, zero_snr=zero_snr, tokenizers=tokenizers)
