"""The configurations of published bases, as diffusers folders without weights."""

import json
from pathlib import Path
from typing import Any

Part = tuple[str, str, dict[str, Any]]
"""Library, class, and what differs from the class's own defaults."""

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
CLIPS: dict[str, Part] = {
    "text_encoder": ("transformers", "CLIPTextModelWithProjection", CLIP_L | {"projection_dim": 768}),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", CLIP_G | {"projection_dim": 1280}),
}
T5_XXL: Part = (
    "transformers",
    "T5EncoderModel",
    {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "feed_forward_proj": "gated-gelu"},
)
QWEN3_4B = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
FLOW: Part = ("diffusers", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0})
NOISE: Part = ("diffusers", "EulerDiscreteScheduler", {"beta_schedule": "scaled_linear", "steps_offset": 1})
CLIP_TOKENS: Part = ("transformers", "CLIPTokenizer", {})


def vae(kind: str = "AutoencoderKL", **settings: Any) -> Part:
    down, up = ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4
    shape = {"block_out_channels": [128, 256, 512, 512], "down_block_types": down, "up_block_types": up}
    return "diffusers", kind, {**shape, "layers_per_block": 2, "sample_size": 1024, **settings}


BASES: dict[str, tuple[str, dict[str, Part]]] = {
    "Stable Diffusion 1.5": (
        "StableDiffusionPipeline",
        {
            "unet": ("diffusers", "UNet2DConditionModel", {"sample_size": 64, "cross_attention_dim": 768}),
            "vae": vae(sample_size=512),
            "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
            "tokenizer": CLIP_TOKENS,
            "scheduler": NOISE,
        },
    ),
    "Stable Diffusion XL": (
        "StableDiffusionXLPipeline",
        {
            "unet": (
                "diffusers",
                "UNet2DConditionModel",
                {
                    "sample_size": 128,
                    "block_out_channels": [320, 640, 1280],
                    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                    "transformer_layers_per_block": [1, 2, 10],
                    "attention_head_dim": [5, 10, 20],
                    "use_linear_projection": True,
                    "cross_attention_dim": 2048,
                    "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 256,
                    "projection_class_embeddings_input_dim": 2816,
                },
            ),
            "vae": vae(force_upcast=True),
            **CLIPS,
            "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
            "tokenizer": CLIP_TOKENS,
            "tokenizer_2": CLIP_TOKENS,
            "scheduler": NOISE,
        },
    ),
    "Stable Diffusion 3.5 Medium": (
        "StableDiffusion3Pipeline",
        {
            "transformer": (
                "diffusers",
                "SD3Transformer2DModel",
                {
                    "num_layers": 24,
                    "num_attention_heads": 24,
                    "caption_projection_dim": 1536,
                    "joint_attention_dim": 4096,
                    "pos_embed_max_size": 384,
                    "qk_norm": "rms_norm",
                    "dual_attention_layers": list(range(13)),
                },
            ),
            "vae": vae(latent_channels=16, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
            **CLIPS,
            "text_encoder_3": T5_XXL,
            "scheduler": FLOW,
        },
    ),
    "FLUX.1-dev": (
        "FluxPipeline",
        {
            "transformer": ("diffusers", "FluxTransformer2DModel", {"guidance_embeds": True}),
            "vae": vae(latent_channels=16, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
            "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
            "text_encoder_2": T5_XXL,
            "scheduler": FLOW,
        },
    ),
    "FLUX.2-klein 4B": (
        "Flux2KleinPipeline",
        {
            "transformer": (
                "diffusers",
                "Flux2Transformer2DModel",
                {
                    "num_layers": 5,
                    "num_single_layers": 20,
                    "num_attention_heads": 24,
                    "joint_attention_dim": 7680,
                    "guidance_embeds": False,
                },
            ),
            "vae": ("diffusers", "AutoencoderKLFlux2", {}),
            "text_encoder": ("transformers", "Qwen3ForCausalLM", QWEN3_4B),
            "scheduler": FLOW,
        },
    ),
    "Z-Image": (
        "ZImagePipeline",
        {
            "transformer": ("diffusers", "ZImageTransformer2DModel", {}),
            "vae": vae(latent_channels=16, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
            "text_encoder": ("transformers", "Qwen3Model", QWEN3_4B),
            "scheduler": FLOW,
        },
    ),
}


def write_folder(name: str, folder: Path) -> Path:
    """A diffusers folder of a published base, configurations alone."""
    pipeline, parts = BASES[name]
    index = {"_class_name": pipeline} | {part: [library, kind] for part, (library, kind, _) in parts.items()}
    _write(folder / "model_index.json", index)
    for part, (_, kind, settings) in parts.items():
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        _write(folder / part / file, {"_class_name": kind, **settings})
    return folder


def _write(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values), encoding="utf-8")
