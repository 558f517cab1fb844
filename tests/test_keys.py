"""Names of adapted layers in LoRA files, checked at full size on the meta device against the loaders of others."""

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from diffusers import (
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ldm import unet_key
from spectral_fusion.base.flow import JOINT_ATTENTION
from spectral_fusion.base.layers import base_layers
from spectral_fusion.concept.keys import diffusers_keys, kohya_keys, left_by_kohya, original_path
from spectral_fusion.errors import InputError

SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TEXT_2 = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
KLEIN_4B = {"attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 7680}
SD3_MEDIUM = {"attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096}
ATTENTION = re.compile(r"\.(to_q|to_k|to_v|to_out\.0|q_proj|k_proj|v_proj|out_proj)$")


@pytest.fixture(scope="module")
def parts() -> dict[str, nn.Module]:
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel(**SDXL_UNET),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT, projection_dim=768)),
            "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2, projection_dim=1280)),
        }


def layers(parts: dict[str, nn.Module]) -> Iterator[str]:
    """Every layer that can be adapted, but the projection of the pooled text, which no trainer adapts."""
    for part, module in parts.items():
        for path, layer in module.named_modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)) and "text_projection" not in path:
                yield f"{part}.{path}"


def test_sdxl_has_the_attention_projections_that_it_is_known_for(parts: dict[str, nn.Module]) -> None:
    attention = [layer for layer in layers(parts) if ATTENTION.search(layer)]
    assert len([layer for layer in attention if layer.startswith("unet.")]) == 560
    assert len(attention) == 560 + 12 * 4 + 32 * 4


def test_every_layer_has_a_name_of_its_own_in_both_kinds_of_file(parts: dict[str, nn.Module]) -> None:
    names = list(layers(parts))
    for keys in ([diffusers_keys(name) for name in names], [kohya_keys(name, "sdxl") for name in names]):
        assert len({key.down for key in keys} | {key.up for key in keys}) == 2 * len(names)


def test_original_names_are_those_of_a_checkpoint(parts: dict[str, nn.Module]) -> None:
    """The names under which a single file holds the same weights, mapped here by an own table for the tests."""
    tensors = {unet_key(name, 3): name for name in parts["unet"].state_dict() if name.endswith(".weight")}
    by_module = {key.removesuffix(".weight").replace("{sampler}", "2"): name for key, name in tensors.items()}
    paths = [layer.removeprefix("unet.") for layer in layers(parts) if layer.startswith("unet.")]
    assert {original_path(path): f"{path}.weight" for path in paths}.items() <= by_module.items()


def test_diffusers_own_loader_leads_every_kohya_name_back_to_its_layer(parts: dict[str, nn.Module]) -> None:
    names = list(layers(parts))
    file: dict[str, torch.Tensor] = {}
    for number, name in enumerate(names):
        keys = kohya_keys(name, "sdxl")
        file |= {keys.down: torch.full((1,), number), keys.up: torch.full((1,), number)}
        file[str(keys.alpha)] = torch.tensor(1.0)
    mapped = _maybe_map_sgm_blocks_to_diffusers(dict(file), parts["unet"].config)
    converted, _ = _convert_non_diffusers_lora_to_diffusers(mapped)
    back = {int(tensor): key for key, tensor in converted.items() if ".up." in key or "lora_B" in key}
    assert len(back) == len(names)
    for number, key in back.items():
        told = re.sub(r"\.processor|_lora|\.lora(_linear_layer)?|\.up\.weight$|\.text_model", "", key)
        told = re.sub(r"\.to_out$", ".to_out.0", told.removesuffix(".up.weight"))
        if key.startswith("text_encoder"):  # diffusers goes through the names of its own attention
            told = re.sub(r"self_attn\.to_(q|k|v|out)(\.0)?$", r"self_attn.\1_proj", told)
        assert told == names[number].replace(".text_model", ""), key


def test_known_names() -> None:
    assert kohya_keys("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "sdxl").down == (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight"
    )
    assert kohya_keys("unet.up_blocks.0.attentions.2.transformer_blocks.9.attn2.to_out.0", "sdxl").alpha == (
        "lora_unet_output_blocks_2_1_transformer_blocks_9_attn2_to_out_0.alpha"
    )
    assert kohya_keys("unet.mid_block.attentions.0.proj_in", "sdxl").up == (
        "lora_unet_middle_block_1_proj_in.lora_up.weight"
    )
    assert kohya_keys("text_encoder_2.text_model.encoder.layers.31.mlp.fc1", "sdxl").down == (
        "lora_te2_text_model_encoder_layers_31_mlp_fc1.lora_down.weight"
    )
    assert kohya_keys("text_encoder.encoder.layers.0.self_attn.q_proj", "sdxl").down == (
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"
    )
    assert kohya_keys("text_encoder.encoder.layers.0.self_attn.q_proj", "sd1").down == (
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"
    )


def test_layers_that_kohyas_scripts_leave_are_named(parts: dict[str, nn.Module]) -> None:
    assert left_by_kohya(layers(parts)) == [
        f"unet.{name}"
        for name in (
            "conv_in",
            "time_embedding.linear_1",
            "time_embedding.linear_2",
            "add_embedding.linear_1",
            "add_embedding.linear_2",
            "conv_out",
        )
    ]


def test_what_is_no_layer_of_xl() -> None:
    with pytest.raises(ValueError, match="no layer of a Stable Diffusion XL UNet"):
        original_path("blocks.0.attn.qkv")


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: FluxTransformer2DModel(guidance_embeds=True), 19 * 8 + 38 * 3),
        (lambda: Flux2Transformer2DModel(num_layers=5, num_single_layers=20, **KLEIN_4B), 5 * 8 + 20 * 2),
        (lambda: ZImageTransformer2DModel(), (30 + 2 + 2) * 4),
        (lambda: SD3Transformer2DModel(num_layers=24, **SD3_MEDIUM), 24 * 8 - 1),
    ],
    ids=["FLUX.1", "FLUX.2-klein 4B", "Z-Image", "SD 3"],
)
def test_adapted_layers_of_transformers_at_full_size(make: Callable[[], nn.Module], count: int) -> None:
    """What diffusers' files call them, and ComfyUI reads under the same names; kohya's are refused."""
    with torch.device("meta"):
        model = make()
    endings = tuple(f".{target}" for target in JOINT_ATTENTION)
    names = [f"transformer.{path}" for path, layer in base_layers(model) if path.endswith(endings)]
    assert len(names) == count
    assert len({diffusers_keys(name).down for name in names}) == count
    assert all(diffusers_keys(name).up == f"{name}.lora_B.weight" for name in names)
    with pytest.raises(InputError, match="not written in kohya's names"):
        kohya_keys(names[0], "flux")
