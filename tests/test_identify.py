"""Any file named for what it is, from its header alone."""

import json
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spectral_fusion.errors import InputError
from spectral_fusion.identify import Header, identify, read_header

UNET, XL_TEXT = "model.diffusion_model.", "conditioner.embedders."
SD1 = {
    f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
}
SD2 = {key.replace("transformer.text_model", "model"): shape for key, shape in SD1.items()} | {
    f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)
}
SDXL = {
    f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    f"{UNET}middle_block.0.in_layers.0.weight": (1280,),
    f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 2048),
    f"{UNET}label_emb.0.0.weight": (1280, 2816),
    f"{XL_TEXT}0.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    f"{XL_TEXT}1.model.token_embedding.weight": (49408, 1280),
    "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
}
REFINER = {
    f"{UNET}input_blocks.0.0.weight": (384, 4, 3, 3),
    f"{UNET}label_emb.0.0.weight": (1536, 2560),
    f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1536, 1280),
    f"{XL_TEXT}0.model.token_embedding.weight": (49408, 1280),
    "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
}
WIDE = {f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}
ONE = (1,)


def header(shapes: dict[str, tuple[int, ...]], dtype: str = "F16", **metadata: str) -> Header:
    said = {key.replace("__", "."): value for key, value in metadata.items()}
    return Header(Path("file.safetensors"), shapes, dict.fromkeys(shapes, dtype), said)


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (SD1, "sd1"),
        (SD2, "sd2"),
        (SDXL, "sdxl"),
        (REFINER, "sdxl-refiner"),
        (SDXL | {"edm_mean": ONE}, "playground-2.5"),
        (SDXL | {"edm_vpred.sigma_max": ONE}, "cosxl"),
        ({k: v for k, v in SDXL.items() if "middle_block.1" not in k}, "sdxl-pruned"),
        ({"joint_blocks.0.context_block.attn.qkv.weight": (1, 1)}, "sd3"),
        ({f"{UNET}joint_blocks.37.x_block.mlp.fc1.weight": (1, 1)}, "sd3.5-large"),
        ({f"{UNET}joint_blocks.0.x_block.attn2.qkv.weight": (1, 1)}, "sd3.5-medium"),
        ({f"{UNET}double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "flux1"),
        ({"double_blocks.0.img_attn.qkv.weight": ONE, "distilled_guidance_layer.in_proj.bias": ONE}, "chroma"),
        ({"single_stream_modulation.lin.weight": ONE, "txt_in.weight": (3072, 7680)}, "flux2-klein-4b"),
        ({"single_stream_modulation.linear.weight": ONE, "context_embedder.weight": (4096, 12288)}, "flux2-klein-9b"),
        ({"single_stream_modulation.lin.weight": ONE, "txt_in.weight": (6144, 15360)}, "flux2"),
        ({f"{UNET}layers.0.adaLN_modulation.0.weight": ONE, f"{UNET}cap_embedder.0.weight": ONE}, "z-image"),
        ({f"{UNET}layers.0.adaLN_modulation.1.weight": ONE, f"{UNET}cap_embedder.0.weight": ONE}, "lumina2"),
        ({"transformer_blocks.0.img_mod.1.weight": ONE, "txt_norm.weight": ONE}, "qwen-image"),
        ({"net.x_embedder.proj.1.weight": ONE, "net.llm_adapter.blocks.0.weight": ONE}, "anima"),
        ({"net.x_embedder.proj.1.weight": ONE, "net.blocks.0.self_attn.q_proj.weight": ONE}, "cosmos"),
    ],
)
def test_families(shapes: dict[str, tuple[int, ...]], family: str) -> None:
    found = identify(header(shapes))
    assert (found.kind, found.family) == ("base", family)
    assert (found.advice == "") == (family in ("sd1", "sd2", "sdxl"))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (SD1 | WIDE, "1.x checkpoint for inpainting; give a text-to-image checkpoint"),
        (SDXL | WIDE, "XL checkpoint for inpainting"),
        (REFINER, "XL refiner; give the base model that it refines"),
        ({"joint_blocks.0.x.weight": ONE}, "Stable Diffusion 3 checkpoint; give the diffusers folder of this model"),
        ({k: v for k, v in SDXL.items() if "first_stage" not in k}, "XL checkpoint with no autoencoder"),
        ({k: v for k, v in SDXL.items() if "conditioner" not in k}, "XL checkpoint with no text encoder"),
        ({k.removeprefix(UNET): v for k, v in SD1.items()}, "UNet alone; give the whole diffusers folder"),
        ({"decoder.conv_in.weight": ONE, "encoder.conv_in.weight": ONE}, "VAE"),
        ({"something.else": ONE}, "not Stable Diffusion"),
    ],
)
def test_files_that_cannot_be_a_base(shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        identify(header(shapes)).check_base()


def test_whole_checkpoints_pass() -> None:
    for shapes in (SD1, SD2, SDXL):
        identify(header(shapes)).check_base()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.lora_up.weight"],
            "a LoRA for Stable Diffusion XL",
        ),
        (["unet.down_blocks.0.attentions.0.attn1.to_k.lora_A.weight"], "a LoRA"),
        (["transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight"], "a LoRA for Flux"),
        (["lora_te2_text_model_encoder_layers_0_mlp_fc1.lokr_w1"], "a LoKr for Stable Diffusion XL"),
        (["lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"], "a LoHa"),
        (["lora_unet_mid_block_attentions_0_proj_in.oft_blocks"], "an OFT"),
        (["base_model.model.mid.oft_R.weight"], "an OFT"),
        (["clip_l", "clip_g"], "a textual-inversion embedding for Stable Diffusion XL"),
        (["emb_params"], "a textual-inversion embedding"),
        (["unet.mid_block.attentions.0.proj_in.U"], "a concept of this program whose metadata was lost"),
        (["<rex>"], "a textual-inversion embedding"),
        (["control_model.time_embed.0.weight"], "a ControlNet"),
        (["encoder.block.0.layer.0.SelfAttention.q.weight"], "T5"),
    ],
)
def test_adapters_and_parts(names: list[str], words: str) -> None:
    found = identify(header(dict.fromkeys(names, (8, 8))))
    assert str(found).startswith(words) or words in str(found)
    assert found.advice


@pytest.mark.parametrize(("width", "family"), [(768, "Stable Diffusion 1.x"), (1024, "Stable Diffusion 2.x")])
def test_embeddings_of_either_generation(width: int, family: str) -> None:
    assert str(identify(header({"emb_params": (4, width)}))) == f"a textual-inversion embedding for {family}"


def test_what_is_predicted_and_who_says_so() -> None:
    def predicted(shapes: dict[str, tuple[int, ...]], **metadata: str) -> tuple[str, bool, str]:
        found = identify(header(shapes, **metadata)).prediction
        assert found is not None
        return found.type, found.zero_snr, found.source

    assert predicted(SD1) == ("epsilon", False, "")
    assert predicted(SD2) == ("v_prediction", False, "")
    assert predicted(SDXL) == ("epsilon", False, "")
    assert predicted(SDXL | {"v_pred": (0,)}) == ("v_prediction", False, "its key v_pred")
    assert predicted(SDXL | {"v_pred": (0,), "ztsnr": (0,)}) == ("v_prediction", True, "its key v_pred")
    assert predicted(SD2, modelspec__prediction_type="epsilon")[0] == "epsilon"
    assert predicted(SD1, modelspec__prediction_type="v")[0] == "v_prediction"
    assert predicted(SD2, modelspec__architecture="stable-diffusion-v2-512")[0] == "epsilon"
    assert predicted(SD2, modelspec__architecture="stable-diffusion-v2-768-v")[0] == "v_prediction"


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("absmax", None),
        ("quant_state.bitsandbytes__nf4", "bitsandbytes in NF4"),
        ("SCB", "bitsandbytes in int8"),
        ("comfy_quant", "ComfyUI"),
        ("scale_weight", "ComfyUI"),
        ("wscales", "Nunchaku"),
        ("weight._data", "quanto"),
    ],
)
def test_quantised_files_name_their_tool(name: str, tool: str | None) -> None:
    found = identify(header(SDXL | {f"{UNET}middle_block.1.transformer_blocks.0.attn1.to_q.{name}": ONE}))
    if tool is None:
        assert found.quantised is None
        return
    assert found.quantised is not None
    assert found.quantised.startswith(tool)
    with pytest.raises(InputError, match=r"quantised by .*; its weights cannot be decomposed"):
        found.check_base()


def test_plain_8_bit_floats_load_by_a_cast() -> None:
    found = identify(header(SDXL, dtype="F8_E4M3"))
    assert found.quantised == "a cast to 8-bit floats"
    found.check_base()


def test_a_header_is_read_without_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, path, metadata={"said": "so"})
    read = read_header(path)
    assert read.shapes == {"a": (2, 3), "b": (4,)}
    assert read.dtypes == {"a": "F32", "b": "BF16"}
    assert read.metadata == {"said": "so"}


def test_a_header_of_thousands_of_names_takes_under_a_second() -> None:
    shapes = {f"{UNET}block_{i}.{key}": ONE for i in range(3_000) for key in ("weight", "bias")}
    start = time.process_time()
    assert identify(header(shapes)).kind == "unknown"
    assert time.process_time() - start < 1


def test_damaged_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file({"a": torch.zeros(100)}, whole)
    content = whole.read_bytes()
    bad = json.dumps({"a": {"dtype": "F32", "shape": [100], "data_offsets": [0, 4]}}).encode()
    for name, data in {
        "empty": b"",
        "random": bytes(range(256)) * 9,
        "short": content[: len(content) // 2],
        "header_cut": content[:20],
        "lies": struct.pack("<Q", len(bad)) + bad + bytes(400),
        "list": struct.pack("<Q", 2) + b"[]" + bytes(9),
    }.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            read_header(path)


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x0580])
def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"filler": ""})
    entries = json.loads(path.read_bytes()[8:].split(b"\0")[0].decode().rstrip())
    header = json.dumps(entries).encode().ljust(length)
    path.write_bytes(struct.pack("<Q", length) + header + bytes(8))
    assert read_header(path).shapes == {"a": (2,)}


def test_other_formats_are_named(tmp_path: Path) -> None:
    for data, words in ((b"GGUF\x03\0\0\0", "GGUF"), (b"PK\x03\x04aaaaaa", "pickle"), (b"\x80\x02aaaaaaa", "pickle")):
        (tmp_path / "file.safetensors").write_bytes(data)
        with pytest.raises(InputError, match=words):
            identify(tmp_path / "file.safetensors")
    with pytest.raises(InputError, match="does not exist"):
        identify(tmp_path / "nothing.safetensors")
