"""Settings that a single file in the original layout implies: diffusers' configurations, read off names and shapes.

The key names are those of the original code: the UNet under `model.diffusion_model.`, the autoencoder under
`first_stage_model.`, text encoders under `cond_stage_model.` (1.x, 2.x) or `conditioner.embedders.` (XL).
What tensors do not tell (noise schedule, activation, number of heads in 1.x) are the published models' own settings.
"""

import re
from dataclasses import dataclass
from typing import Any

from spectral_fusion.identify import Header, Prediction

UNET, VAE = "model.diffusion_model.", "first_stage_model."
WORDS = "embeddings.token_embedding.weight"
START_ID, END_ID = 49406, 49407
TIME_IDS = 6  # XL's size conditions: original height and width, crop top and left, target height and width


@dataclass(frozen=True)
class TextLayout:
    """Where a text encoder lies in the file.

    Attributes:
        prefix: what its names begin with.
        open_clip: OpenCLIP's names (2.x, and XL's second), else those of transformers.
        projected: it gives a pooled vector beside the words (XL's second).
        drop_last: leave its last layer out, as 2.x was trained on the one before.
    """

    prefix: str
    open_clip: bool = False
    projected: bool = False
    drop_last: bool = False


def count(header: Header, pattern: str) -> int:
    """How many different numbers stand at the group of the pattern."""
    compiled = re.compile(pattern)
    return len({match[1] for key in header.shapes if (match := compiled.match(key))})


def text_layouts(header: Header, family: str) -> list[TextLayout]:
    """The file's text encoders in the pipeline's order."""
    if family == "sdxl":
        first = _clip_prefix(header, "conditioner.embedders.0.transformer.")
        return [TextLayout(first), TextLayout("conditioner.embedders.1.model.", open_clip=True, projected=True)]
    if family == "sd2":
        return [TextLayout("cond_stage_model.model.", open_clip=True, drop_last=True)]
    return [TextLayout(_clip_prefix(header, "cond_stage_model.transformer."))]


def _clip_prefix(header: Header, prefix: str) -> str:
    """Some merged models left `text_model.` out."""
    return f"{prefix}text_model." if f"{prefix}text_model.{WORDS}" in header.shapes else prefix


def text_config(header: Header, layout: TextLayout) -> dict[str, Any]:
    """Settings of `CLIPTextModel`, or of `CLIPTextModelWithProjection`."""
    if layout.open_clip:
        layer, position = r"transformer\.resblocks\.(\d+)\.", "positional_embedding"
        words, inner = "token_embedding.weight", "transformer.resblocks.0.mlp.c_fc.weight"
    else:
        layer, position = r"encoder\.layers\.(\d+)\.", "embeddings.position_embedding.weight"
        words, inner = WORDS, "encoder.layers.0.mlp.fc1.weight"
    shapes, prefix = header.shapes, layout.prefix
    vocabulary, width = shapes[prefix + words]
    config = {
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes[prefix + inner][0],
        "num_hidden_layers": count(header, re.escape(prefix) + layer) - layout.drop_last,
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": shapes[prefix + position][0],
        "hidden_act": "gelu" if layout.open_clip else "quick_gelu",
        "bos_token_id": START_ID,
        "eos_token_id": END_ID,
        "pad_token_id": 0 if layout.open_clip else END_ID,
    }
    return config | ({"projection_dim": shapes[f"{prefix}text_projection"][1]} if layout.projected else {})


def unet_config(header: Header, family: str, prediction: Prediction) -> dict[str, Any]:
    """Settings of `UNet2DConditionModel`. 8 heads at each level in 1.x, heads of 64 later: tensors do not tell."""
    shapes = header.shapes
    blocks = count(header, re.escape(UNET) + r"input_blocks\.(\d+)\.")
    per_level = next(i for i in range(1, blocks + 1) if f"{UNET}input_blocks.{i}.0.op.weight" in shapes)
    firsts = range(1, blocks, per_level)
    widths = [shapes[f"{UNET}input_blocks.{i}.0.out_layers.3.weight"][0] for i in firsts]
    crossed = [f"{UNET}input_blocks.{i}.1.proj_in.weight" in shapes for i in firsts]
    depths = [count(header, re.escape(f"{UNET}input_blocks.{i}.1.") + r"transformer_blocks\.(\d+)\.") for i in firsts]
    to_k = next(key for key in shapes if key.startswith(UNET) and key.endswith("attn2.to_k.weight"))
    proj_in = next(key for key in shapes if key.startswith(UNET) and key.endswith(".1.proj_in.weight"))
    config = {
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
        "sample_size": own_size(family, prediction) // 8,
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in crossed],
        "up_block_types": ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(crossed)],
        "layers_per_block": per_level - 1,
        "transformer_layers_per_block": [max(1, depth) for depth in depths],
        "cross_attention_dim": shapes[to_k][1],
        "attention_head_dim": 8 if family == "sd1" else [max(1, width // 64) for width in widths],
        "use_linear_projection": len(shapes[proj_in]) == 2,
    }
    return config | (_added_conditions(header) if family == "sdxl" else {})


def _added_conditions(header: Header) -> dict[str, Any]:
    pooled = header.shapes["conditioner.embedders.1.model.text_projection"][1]
    width = header.shapes[f"{UNET}label_emb.0.0.weight"][1]
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (width - pooled) // TIME_IDS,
        "projection_class_embeddings_input_dim": width,
    }


def own_size(family: str, prediction: Prediction) -> int:
    """Pixels that the published models were trained at; 2.x at 512 (base, epsilon) or 768 (v-prediction)."""
    if family == "sdxl":
        return 1024
    return 768 if family == "sd2" and prediction.type == "v_prediction" else 512


def vae_config(header: Header, family: str, prediction: Prediction) -> dict[str, Any]:
    """Settings of `AutoencoderKL`. XL's overflows in half precision, so it says `force_upcast`."""
    levels = count(header, re.escape(VAE) + r"encoder\.down\.(\d+)\.")
    widths = [header.shapes[f"{VAE}encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)]
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": count(header, re.escape(VAE) + r"encoder\.down\.0\.block\.(\d+)\."),
        "latent_channels": header.shapes[f"{VAE}post_quant_conv.weight"][0],
        "sample_size": own_size(family, prediction),
        "scaling_factor": 0.13025 if family == "sdxl" else 0.18215,
        "force_upcast": family == "sdxl",
    }


def scheduler_config(prediction: Prediction) -> dict[str, Any]:
    """Settings of the noise schedule.

    With zero terminal SNR sampling begins at the last timestep, which is pure noise: spacing "trailing" (Lin et al.,
    "Common Diffusion Noise Schedules and Sample Steps are Flawed").
    """
    return {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "prediction_type": prediction.type,
        "rescale_betas_zero_snr": prediction.zero_snr,
        "timestep_spacing": "trailing" if prediction.zero_snr else "leading",
    }
