"""Exports: a stock base that loads them makes the same picture as the concepts themselves."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from concepts import delta, make_concept, picture
from spectral_fusion.base.attach import attach
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, export_embedding, export_lora
from spectral_fusion.concept.joint import joint_factors
from spectral_fusion.errors import InputError
from tiny import tiny_base

PROMPT = "a <rex> dog and a <tom> cat on grass"
FORMATS = ["diffusers", "kohya"]


def attached(*concepts: tuple[Concept, float]) -> torch.Tensor:
    base = tiny_base()
    for concept, weight in concepts:
        attach(base, concept, weight)
    return picture(base, PROMPT)


def stock(concepts: dict[Concept, float], folder: Path, to: str) -> StableDiffusion:
    """A stock base that has loaded the exported files and nothing else."""
    base = tiny_base()
    for concept in concepts:
        base.pipeline.load_textual_inversion(str(export_embedding(concept, folder / f"{concept.name}.safetensors")))
    base.pipeline.load_lora_weights(str(export_lora(concepts, folder / f"{to}.safetensors", to)))
    return base


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("mode", ["additive", "rotational"])
def test_one_concept_through_load_lora_weights(tmp_path: Path, to: str, mode: str) -> None:
    concept = make_concept(tiny_base(), mode=mode, train_s=True, alpha=0.8)
    base = stock({concept: 0.9}, tmp_path, to)
    for model in (base.unet, base.text_encoder):
        assert any("lora_A" in name for name, _ in model.named_modules())
    torch.testing.assert_close(picture(base, PROMPT), attached((concept, 0.9)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("to", FORMATS)
def test_several_concepts_of_different_rank_mode_and_layers_in_one_file(tmp_path: Path, to: str) -> None:
    base = tiny_base()
    rex = make_concept(base, rank=4)
    tom = make_concept(base, "tom", rank=2, band=4, mode="rotational", targets=("to_k", "to_v", "v_proj"), seed=1)
    base = stock({rex: 1.0, tom: -0.7}, tmp_path, to)
    expected = attached((rex, 1.0), (tom, -0.7))
    torch.testing.assert_close(picture(base, PROMPT), expected, rtol=0, atol=1e-5)
    tensors = load_file(tmp_path / f"{to}.safetensors")
    downs = [tensor for key, tensor in tensors.items() if "lora_A" in key or "lora_down" in key]
    assert {len(down) for down in downs} == {2 * 4 + 2}
    assert {tensor.item() for key, tensor in tensors.items() if key.endswith(".alpha")} <= {10.0}


@pytest.mark.parametrize("to", FORMATS)
def test_convolutions_and_feed_forward_layers(tmp_path: Path, to: str) -> None:
    concept = make_concept(tiny_base(), targets=("conv1", "proj_in", "net.2", "fc1"))
    base = stock({concept: 1.0}, tmp_path, to)
    torch.testing.assert_close(picture(base, PROMPT), attached((concept, 1.0)), rtol=0, atol=1e-5)


def test_kohya_keys_are_those_of_published_files(shared_base: StableDiffusion, tmp_path: Path) -> None:
    keys = set(load_file(export_lora({make_concept(shared_base): 1.0}, tmp_path / "k.safetensors", "kohya")))
    unet = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    for key in (unet, text):
        assert {f"{key}.lora_down.weight", f"{key}.lora_up.weight", f"{key}.alpha"} <= keys
    assert not any("lora_te1_" in key for key in keys)


@pytest.mark.parametrize("to", FORMATS)
def test_metadata_names_triggers_concepts_and_base(shared_base: StableDiffusion, tmp_path: Path, to: str) -> None:
    rex, tom = make_concept(shared_base), make_concept(shared_base, "tom", band=1)
    path = export_lora({rex: 1.0, tom: 0.5}, tmp_path / "lora.safetensors", to)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.trigger_phrase"] == "<rex>, <tom>"
    assert metadata["modelspec.merged_from"] == "rex 1, tom 0.5"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["spectral_fusion.base"] == rex.base
    assert metadata["ss_network_dim"] == "16"
    assert float(metadata["ss_network_alpha"]) == 16


def test_half_precision_costs_a_thousandth(shared_base: StableDiffusion, tmp_path: Path) -> None:
    concept = make_concept(shared_base)
    tensors = load_file(export_lora({concept: 1.0}, tmp_path / "half.safetensors", dtype=torch.float16))
    for name in concept.layers:
        if name.startswith("unet."):
            rounded = tensors[f"{name}.lora_B.weight"].float() @ tensors[f"{name}.lora_A.weight"].float()
            exact = delta(concept.factors(name))
            assert torch.linalg.norm(rounded - exact) < 1e-3 * torch.linalg.norm(exact)


@pytest.mark.parametrize(("weight", "dtype"), [(1e30, torch.float16), (1e300, torch.float32)])
def test_numbers_that_the_file_cannot_hold_are_refused(
    shared_base: StableDiffusion, tmp_path: Path, weight: float, dtype: torch.dtype
) -> None:
    with pytest.raises(InputError, match="not finite; lower the weights"):
        export_lora({make_concept(shared_base): weight}, tmp_path / "rex.safetensors", dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_the_embedding_file_reads_by_name(tmp_path: Path) -> None:
    concept, base = make_concept(tiny_base(), vectors=3), tiny_base()
    base.pipeline.load_textual_inversion(str(export_embedding(concept, tmp_path / "rex.safetensors")))
    ids = base.tokenizer.convert_tokens_to_ids(["<rex>", "<rex>_1", "<rex>_2"])
    assert torch.equal(base.text_encoder.get_input_embeddings().weight[ids], concept.embeddings["text_encoder"])


def test_joint_factors_are_the_weighted_sum(shared_base: StableDiffusion) -> None:
    modes = {"rex": "additive", "tom": "rotational", "bot": "additive", "zoe": "rotational"}
    concepts = {
        make_concept(shared_base, name, mode=mode, band=i, train_s=i < 2, alpha=1 + i, seed=i): 0.5 - i
        for i, (name, mode) in enumerate(modes.items())
    }
    for layer in next(iter(concepts)).layers:
        joint = joint_factors(concepts, layer)
        assert joint.up.shape[1] == sum(concept.factor_rank for concept in concepts)
        expected = sum(weight * delta(concept.factors(layer)) for concept, weight in concepts.items())
        torch.testing.assert_close(delta(joint), expected)


def test_what_cannot_be_exported_is_refused(shared_base: StableDiffusion, tmp_path: Path) -> None:
    rex, stranger = make_concept(shared_base), make_concept(tiny_base(seed=1), "tom")
    path = tmp_path / "lora.safetensors"
    with pytest.raises(InputError, match="format 'a1111' is unknown"):
        export_lora({rex: 1.0}, path, "a1111")
    with pytest.raises(InputError, match="no concept given"):
        export_lora({}, path)
    with pytest.raises(InputError, match="not a number"):
        export_lora({rex: float("nan")}, path)
    with pytest.raises(InputError, match=f"{rex.base} tiny, 'tom' on {stranger.base}"):
        export_lora({rex: 1.0, stranger: 1.0}, path)
    assert not path.exists()
