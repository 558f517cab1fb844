"""Single files in the original layouts, loaded offline: every setting read off the tensors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

from ldm import ldm_tensors, miniature
from ldm_xl import miniature_xl, xl_tensors
from spectral_fusion.base.load import open_base
from spectral_fusion.base.single_file import load_single_file
from spectral_fusion.errors import InputError
from spectral_fusion.identify import identify

Tensors = dict[str, torch.Tensor]
SETTINGS = ("block_out_channels", "down_block_types", "transformer_layers_per_block", "cross_attention_dim")
MARKS = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}


def picture(pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    size = {"height": 32, "width": 32, "num_inference_steps": 2}
    return pipeline("a red dog", negative_prompt="ugly", generator=generator, output_type="np", **size).images


def load(tensors: Tensors, folder: Path, metadata: dict[str, str] | None = None) -> StableDiffusionXLPipeline:
    save_file(tensors, folder / "model.safetensors", metadata=metadata)
    pipeline = load_single_file(folder / "model.safetensors", torch.float32)[0]
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def xl() -> StableDiffusionXLPipeline:
    return miniature_xl()


@pytest.fixture(scope="module")
def tensors(xl: StableDiffusionXLPipeline) -> Tensors:
    return xl_tensors(xl)


def test_a_single_file_of_xl_gives_the_same_picture(
    xl: StableDiffusionXLPipeline, tensors: Tensors, tmp_path: Path
) -> None:
    loaded = load(tensors, tmp_path)
    assert np.abs(picture(loaded) - picture(xl)).max() < 1e-5
    assert (loaded.vae.config.scaling_factor, loaded.vae.config.force_upcast) == (0.13025, True)
    for name in SETTINGS:
        assert list(np.atleast_1d(loaded.unet.config[name])) == list(np.atleast_1d(xl.unet.config[name])), name


def test_names_without_text_model_and_leftovers_of_merges(
    xl: StableDiffusionXLPipeline, tensors: Tensors, tmp_path: Path
) -> None:
    merged = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in tensors.items()}
    merged["conditioner.embedders.0.transformer.embeddings.position_ids"] = torch.zeros(1, 77)
    merged["model_ema.decay"] = torch.zeros(())
    assert np.abs(picture(load(merged, tmp_path)) - picture(xl)).max() < 1e-5


def test_v_prediction_and_zero_terminal_snr_by_the_keys_of_such_files(tensors: Tensors, tmp_path: Path) -> None:
    loaded = load(tensors | MARKS, tmp_path)
    assert np.abs(picture(loaded) - picture(miniature_xl(0, "v_prediction", zero_snr=True))).max() < 1e-5
    plain = load(tensors | {"v_pred": torch.zeros(0)}, tmp_path)
    assert plain.scheduler.config.prediction_type == "v_prediction"
    assert not plain.scheduler.config.rescale_betas_zero_snr


def test_zero_terminal_snr_of_sd1(tmp_path: Path) -> None:
    loaded = load(ldm_tensors(miniature(1)) | MARKS, tmp_path)
    assert float(loaded.scheduler.alphas_cumprod[-1]) < 1e-6
    assert loaded.scheduler.config.timestep_spacing == "trailing"


def test_a_prediction_type_from_the_user_rules(tensors: Tensors, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    loaded = open_base(tmp_path / "model.safetensors", prediction_type="v_prediction")
    assert loaded.pipeline.scheduler.config.prediction_type == "v_prediction"


def test_an_autoencoder_that_overflows_stays_in_float32(tensors: Tensors, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    loaded = open_base(tmp_path / "model.safetensors", dtype=torch.bfloat16)
    assert loaded.pipeline.unet.dtype == loaded.pipeline.text_encoder_2.dtype == torch.bfloat16
    assert loaded.pipeline.vae.dtype == torch.float32
    assert torch.equal(loaded.pipeline.vae.decoder.conv_in.weight, tensors["first_stage_model.decoder.conv_in.weight"])


@pytest.mark.parametrize(("version", "size"), [(1, 64), (2, 96)])
def test_sd1_and_sd2_as_before(version: int, size: int, tmp_path: Path) -> None:
    pipeline = getattr(miniature(version), "pipeline", None) or miniature(version)
    loaded = load(ldm_tensors(pipeline), tmp_path)
    assert np.array_equal(picture(loaded), picture(pipeline))
    assert loaded.unet.config.sample_size == size


def test_sd2_base_that_says_epsilon_is_of_512_pixels(tmp_path: Path) -> None:
    loaded = load(ldm_tensors(miniature(2)), tmp_path, {"modelspec.architecture": "stable-diffusion-v2-512"})
    assert loaded.scheduler.config.prediction_type == "epsilon"
    assert loaded.unet.config.sample_size == 64


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.middle_block.1.norm.weight",
        "first_stage_model.decoder.conv_in.bias",
        "conditioner.embedders.0.transformer.text_model.encoder.layers.1.mlp.fc2.bias",
        "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight",
        "conditioner.embedders.1.model.text_projection",
        "model.diffusion_model.label_emb.0.2.bias",
    ],
)
def test_a_file_with_a_tensor_missing(tensors: Tensors, tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match="missing or misshapen"):
        load({name: tensor for name, tensor in tensors.items() if name != key}, tmp_path)


def test_half_precision_and_8_bit_floats(tensors: Tensors, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(halves, tmp_path / "half.safetensors")
    loaded = load_single_file(tmp_path / "half.safetensors", torch.bfloat16)[0]
    assert {loaded.unet.dtype, loaded.text_encoder.dtype, loaded.text_encoder_2.dtype} == {torch.bfloat16}
    unet = "model.diffusion_model."
    eighths = {n: t.to(torch.float8_e4m3fn) if n.startswith(unet) else t for n, t in tensors.items()}
    save_file(eighths, tmp_path / "eighth.safetensors")
    assert identify(tmp_path / "eighth.safetensors").quantised == "a cast to 8-bit floats"
    assert load_single_file(tmp_path / "eighth.safetensors", torch.float32)[0].unet.dtype == torch.float32
