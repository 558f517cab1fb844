"""Every way to name a base, on random checkpoints in the real layouts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm import ldm_tensors, miniature
from spectral_fusion.base.bundled import BUNDLED
from spectral_fusion.base.clip_tokenizer import clip_tokenizer
from spectral_fusion.base.default import DEFAULT
from spectral_fusion.base.load import open_base
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError

REVISION = "0123456789abcdef0123456789abcdef01234567"
OLD_CLIP = ("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")


def picture(base: StableDiffusion, prompt: str = "a photo of a red dog") -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    size = {"height": 32, "width": 32, "num_inference_steps": 2}
    return base.pipeline(prompt, negative_prompt="ugly", generator=generator, output_type="np", **size).images


@pytest.fixture(scope="module")
def sd1() -> StableDiffusion:
    return miniature(1)


@pytest.fixture(scope="module")
def sd1_tensors(sd1: StableDiffusion) -> dict[str, torch.Tensor]:
    return ldm_tensors(sd1)


def test_diffusers_folder(shared_base: StableDiffusion, tmp_path: Path) -> None:
    shared_base.pipeline.save_pretrained(tmp_path / "base")
    loaded = open_base(tmp_path / "base")
    assert np.array_equal(picture(loaded), picture(shared_base))
    assert loaded.pipeline.name_or_path == str(tmp_path / "base")
    assert loaded.pipeline.safety_checker is None


def test_dtype(shared_base: StableDiffusion, tmp_path: Path) -> None:
    shared_base.pipeline.save_pretrained(tmp_path / "base")
    loaded = open_base(tmp_path / "base", dtype=torch.bfloat16)
    assert {loaded.unet.dtype, loaded.text_encoder.dtype} == {torch.bfloat16}
    assert loaded.vae.dtype == torch.float32  # its configuration says force_upcast


def test_a_folder_of_half_precision_files_alone(shared_base: StableDiffusion, tmp_path: Path) -> None:
    shared_base.pipeline.save_pretrained(tmp_path / "base", variant="fp16")
    assert not list((tmp_path / "base").glob("*/*_model.safetensors"))
    assert np.array_equal(picture(open_base(tmp_path / "base")), picture(shared_base))


def test_a_hub_id_is_read_from_the_hubs_cache_offline(
    shared_base: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--somebody--tiny-diffusion"
    shared_base.pipeline.save_pretrained(repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = open_base("somebody/tiny-diffusion")
    assert np.array_equal(picture(loaded), picture(shared_base))
    assert loaded.pipeline.name_or_path == "somebody/tiny-diffusion"


def test_single_file_of_sd1(sd1: StableDiffusion, sd1_tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(sd1_tensors, tmp_path / "model.safetensors")
    assert np.array_equal(picture(open_base(tmp_path / "model.safetensors")), picture(sd1))


def test_single_file_with_the_shorter_names_and_leftovers_of_merged_models(
    sd1: StableDiffusion, sd1_tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    tensors = {name.replace(*OLD_CLIP): tensor for name, tensor in sd1_tensors.items()}
    tensors["cond_stage_model.transformer.embeddings.position_ids"] = torch.zeros(1, 77)  # spoilt by a merge in fp16
    tensors["model_ema.decay"] = torch.zeros(())
    save_file(tensors, tmp_path / "model.safetensors")
    assert np.array_equal(picture(open_base(tmp_path / "model.safetensors")), picture(sd1))


def test_single_file_of_sd2_predicts_v_unless_it_says_otherwise(tmp_path: Path) -> None:
    sd2 = miniature(2)
    save_file(ldm_tensors(sd2), tmp_path / "v.safetensors")
    loaded = open_base(tmp_path / "v.safetensors")
    assert loaded.pipeline.scheduler.config.prediction_type == "v_prediction"
    assert np.array_equal(picture(loaded), picture(sd2))

    save_file(ldm_tensors(sd2), tmp_path / "epsilon.safetensors", metadata={"modelspec.prediction_type": "epsilon"})
    assert open_base(tmp_path / "epsilon.safetensors").pipeline.scheduler.config.prediction_type == "epsilon"


def test_clip_tokenizer_gives_the_published_ids() -> None:
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a dog").input_ids == [49406, 320, 1125, 539, 320, 1929, 49407]


def without(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["lora_unet_down_blocks_0_attentions_0.lora_up.weight"], "LoRA"),
        (["unet.down_blocks.0.attentions.0.to_k.lora_A.weight"], "LoRA"),
        (["conditioner.embedders.0.x", "model.diffusion_model.x", "first_stage_model.x"], "XL"),
        (["model.diffusion_model.joint_blocks.0.x", "first_stage_model.x"], "Diffusion 3"),
        (["double_blocks.0.img_attn.qkv.weight"], "Flux"),
        (["first_stage_model.encoder.conv_in.weight"], "VAE"),
        (["decoder.conv_in.weight", "encoder.conv_in.weight"], "VAE"),
        (["down_blocks.0.resnets.0.conv1.weight"], "UNet"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "text encoder"),
        (["emb_params"], "embedding"),
        (["something.else"], "not Stable Diffusion"),
    ],
)
def test_a_file_that_is_no_base_is_named_for_what_it_is(tmp_path: Path, names: list[str], kind: str) -> None:
    save_file({name: torch.zeros(2, 2) for name in names}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=kind):
        open_base(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("first_stage_model", "no autoencoder"),
        ("cond_stage_model", "no text encoder"),
        ("middle_block.1.norm", "missing"),
        ("layers.1.mlp.fc2.bias", "missing"),
    ],
)
def test_a_checkpoint_with_parts_missing(
    sd1_tensors: dict[str, torch.Tensor], tmp_path: Path, part: str, message: str
) -> None:
    save_file(without(sd1_tensors, part), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=message):
        open_base(tmp_path / "model.safetensors")


def test_an_inpainting_checkpoint_is_refused(sd1_tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    wide = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}
    save_file(sd1_tensors | wide, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="inpainting"):
        open_base(tmp_path / "model.safetensors")


def test_unreadable_files(tmp_path: Path, sd1_tensors: dict[str, torch.Tensor]) -> None:
    save_file(sd1_tensors, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for name, content in {"empty": b"", "random": bytes(range(256)) * 9, "short": whole[: len(whole) // 2]}.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            open_base(tmp_path / f"{name}.safetensors")
    (tmp_path / "model.ckpt").write_bytes(b"pickle")
    with pytest.raises(InputError, match="pickle"):
        open_base(tmp_path / "model.ckpt")


def test_folders_that_are_no_base(shared_base: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model_index\.json"):
        open_base(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(InputError, match="StableDiffusionXLPipeline"):
        open_base(tmp_path)
    shared_base.pipeline.save_pretrained(tmp_path / "base")
    weights = tmp_path / "base/unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match="pickled weights"):
        open_base(tmp_path / "base")
    weights.write_bytes(b"half")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        open_base(tmp_path / "base")


@pytest.mark.parametrize("base", ["someone/nothing-of-that-name", "no such base", "missing.safetensors"])
def test_bases_that_do_not_exist(base: str) -> None:
    with pytest.raises(InputError, match=base):
        open_base(base)


def test_the_default_is_bundled_and_its_damage_has_a_remedy(
    shared_base: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = replace(BUNDLED[DEFAULT], weights=tmp_path / "weights")
    monkeypatch.setitem(BUNDLED, DEFAULT, moved)
    with pytest.raises(InputError, match="reinstall"):
        open_base()
    shared_base.pipeline.save_pretrained(tmp_path / "weights")
    assert np.array_equal(picture(open_base()), picture(shared_base))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model_index.json", "[]"),
        ("model_index.json", "5"),
        ("model_index.json", "[" * 5000),
        ("scheduler/scheduler_config.json", '{"num_train_timesteps": "x"}'),
        ("unet/config.json", "["),
        ("unet/config.json", "[]"),
        ("unet/config.json", '{"cross_attention_dim": "x"}'),
        ("unet/diffusion_pytorch_model.safetensors", ""),
    ],
)
def test_a_folder_whose_files_are_damaged_is_one_line(
    shared_base: StableDiffusion, tmp_path: Path, file: str, text: str
) -> None:
    shared_base.pipeline.save_pretrained(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError) as caught:
        open_base(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_that_lacks_a_weight_is_refused_by_its_name(shared_base: StableDiffusion, tmp_path: Path) -> None:
    shared_base.pipeline.save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"lacks 1 weights, first unet\.conv_in\.weight"):
        open_base(str(tmp_path))
