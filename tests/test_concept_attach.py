"""A concept on a base and off again; collecting what was trained; fingerprints of the base."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from concepts import delta, make_concept, picture, same_weights, weights_of
from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.base.attach import attach, collect, detach
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, LayerTensors
from spectral_fusion.concept.fingerprint import same_weight, weight_fingerprint
from spectral_fusion.errors import InputError
from tiny import tiny_base
from words import add_tokens


def structure(base: StableDiffusion) -> str:
    return f"{base.unet!r}{base.text_encoder!r}{len(base.tokenizer)}"


@pytest.mark.parametrize("mode", ["additive", "rotational"])
def test_attaching_changes_the_picture_and_detaching_restores_everything(base: StableDiffusion, mode: str) -> None:
    concept = make_concept(base, mode=mode, train_s=True)
    shape, weights, plain = structure(base), weights_of(base), picture(base)
    trainable = {name: p.requires_grad for name, p in base.unet.named_parameters()}
    attach(base, concept)
    assert not torch.equal(picture(base), plain)
    assert not any(p.requires_grad for name, p in base.unet.named_parameters() if "spectral_" in name)
    detach(base, concept)
    assert structure(base) == shape
    assert same_weights(weights_of(base), weights)
    assert {name: p.requires_grad for name, p in base.unet.named_parameters()} == trainable
    assert torch.equal(picture(base), plain)
    attach(base, concept)


def test_the_attached_delta_is_the_concepts_times_the_weight(base: StableDiffusion) -> None:
    concept = make_concept(base, alpha=0.5)
    attach(base, concept, weight=0.6)
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = base.unet.get_submodule(name.removeprefix("unet."))
    torch.testing.assert_close(layer.get_delta_weight("rex"), 0.6 * delta(concept.factors(name)))


def test_two_concepts_add_up_and_leave_in_any_order(base: StableDiffusion) -> None:
    rex, tom = make_concept(base), make_concept(base, "tom", band=1, seed=1)
    attach(base, tom, 0.7)
    only_tom = picture(base, "a <tom> dog")
    attach(base, rex)
    assert not torch.equal(picture(base, "a <tom> dog"), only_tom)
    detach(base, rex)
    assert torch.equal(picture(base, "a <tom> dog"), only_tom)
    detach(base, tom)
    assert not hasattr(base.unet, "peft_config")


def test_a_stock_lora_on_the_same_layers_stays(base: StableDiffusion) -> None:
    lora = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    base.unet.add_adapter(lora, "style")
    styled, concept = picture(base), make_concept(base)
    attach(base, concept)
    assert not torch.equal(picture(base), styled)
    detach(base, concept)
    assert torch.equal(picture(base), styled)
    assert any(p.requires_grad for name, p in base.unet.named_parameters() if "lora_A.style" in name)


def test_what_was_trained_is_collected_and_attaches_the_same(base: StableDiffusion, tmp_path: Path) -> None:
    vectors = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    add_tokens(base, "<rex>", vectors)
    for model, targets in ((base.unet, ["to_q", "conv1"]), (base.text_encoder, ["q_proj"])):
        model.add_adapter(SpectralConfig(r=4, band=1, train_s=True, target_modules=targets), "in_training")
        for name, parameter in model.named_parameters():
            if "spectral_" in name:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    trained = picture(base)
    names = {"name": "rex", "trigger": "<rex>", "class_word": "dog"}
    concept = collect(base, "in_training", **names, base_name="tiny", training={"steps": 3})
    assert (concept.band.index, concept.band.rank, concept.directions) == (1, 4, 32)
    assert torch.equal(concept.embeddings["text_encoder"], vectors)
    path = concept.save(tmp_path / "rex.safetensors", dtype=torch.float32)
    fresh = tiny_base()
    attach(fresh, Concept.load(path))
    assert torch.equal(picture(fresh), trained)


@pytest.mark.parametrize("pattern", [{"rank_pattern": {"to_q": 2}}, {"alpha_pattern": {"to_q": 2.0}}])
def test_layers_of_several_ranks_or_strengths_are_not_collected(base: StableDiffusion, pattern: dict) -> None:
    base.unet.add_adapter(SpectralConfig(r=4, target_modules=["to_q", "to_k"], **pattern), "rex")
    add_tokens(base, "<rex>", torch.ones(1, base.text_encoder.config.hidden_size))
    with pytest.raises(InputError, match="leave out rank_pattern and alpha_pattern") as caught:
        collect(base, "rex", name="rex", trigger="<rex>", class_word="dog")
    assert "to_q" in str(caught.value)


@pytest.mark.parametrize("side", ["top", "bottom"])
def test_a_scale_that_was_trained_comes_back_as_it_was(base: StableDiffusion, side: str) -> None:
    concept = make_concept(base, mode="rotational", train_s=True, side=side)
    attach(base, concept)
    names = {"name": "rex", "trigger": "<rex>", "class_word": "dog"}
    found = collect(base, "rex", **names)
    assert found.band == concept.band
    for key, layer in concept.layers.items():
        for part, tensor in layer.tensors().items():
            assert torch.allclose(found.layers[key].tensors()[part], tensor, rtol=0, atol=1e-6)


def test_collecting_what_is_not_there_is_refused(base: StableDiffusion) -> None:
    names = {"name": "rex", "trigger": "<rex>", "class_word": "dog"}
    with pytest.raises(InputError, match="no spectral adapter 'in_training'"):
        collect(base, "in_training", **names)
    base.unet.add_adapter(SpectralConfig(r=4, target_modules=["to_q"]), "in_training")
    with pytest.raises(InputError, match="trigger <rex> is not in this base"):
        collect(base, "in_training", **names)


def test_attaching_needs_no_decomposition(base: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    concept = make_concept(base)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("decomposed while attaching")

    monkeypatch.setattr(torch.linalg, "svd", forbidden)
    attach(base, concept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_base_in_half_precision_is_the_same_base(dtype: torch.dtype) -> None:
    single, half = tiny_base(), tiny_base(dtype=dtype)
    assert single.fingerprint == half.fingerprint
    concept = make_concept(single)
    attach(half, concept)
    layer = half.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    assert layer.spectral_A["rex"].dtype == torch.float32


def test_fingerprints_see_small_changes_and_scale(shared_base: StableDiffusion) -> None:
    weight = shared_base.text_encoder.encoder.layers[0].self_attn.q_proj.weight.detach()
    generator = torch.Generator().manual_seed(0)
    tuned = weight + 0.02 * weight.std() * torch.randn(weight.shape, generator=generator)
    assert same_weight(weight_fingerprint(weight), weight_fingerprint(weight.clone()))
    for other in (tuned, 1.05 * weight, weight.T, weight.flatten()):
        assert not same_weight(weight_fingerprint(weight), weight_fingerprint(other))


def test_fingerprints_do_not_see_adapters_and_tokens(base: StableDiffusion) -> None:
    before = base.fingerprint
    attach(base, make_concept(base))
    base.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"]), "style")
    assert base.fingerprint == before


def refused(concept: Concept, base: StableDiffusion, words: str, weight: float = 1.0) -> None:
    """Attaching raises one line with `words` and changes nothing."""
    shape, weights = structure(base), weights_of(base)
    with pytest.raises(InputError, match=words) as caught:
        attach(base, concept, weight)
    assert "\n" not in str(caught.value)
    assert structure(base) == shape
    assert same_weights(weights_of(base), weights)


def test_another_base_is_refused_with_both_fingerprints(base: StableDiffusion) -> None:
    other = tiny_base(seed=1)
    concept = make_concept(other)
    refused(concept, base, f"{other.fingerprint} tiny, this is base {base.fingerprint}")


def test_a_concept_of_an_earlier_toybox128_is_told_so(base: StableDiffusion) -> None:
    concept = replace(make_concept(tiny_base(seed=1)), base_name="toybox128")
    refused(concept, base, "toybox128 has been trained further since: train 'rex' again on its photos")


def test_layers_that_do_not_fit_are_refused(base: StableDiffusion) -> None:
    concept = make_concept(base)
    name, layer = next((name, layer) for name, layer in concept.layers.items() if len(layer.basis.U) == 64)

    def with_layer(key: str, tensors: LayerTensors) -> Concept:
        layers = {k: v for k, v in concept.layers.items() if k != name} | {key: tensors}
        prints = {k: v for k, v in concept.fingerprints.items() if k != name} | {key: concept.fingerprints[name]}
        return replace(concept, layers=layers, fingerprints=prints)

    refused(with_layer("unet.nowhere.to_q", layer), base, "adapts 'unet.nowhere.to_q', which this base lacks")
    U = layer.basis.U
    small = LayerTensors(layer.basis._replace(U=U[:48]), layer.trained | {"A": layer.trained["A"][:48]})
    refused(with_layer(name, small), base, "of shape")
    refused(replace(concept, embeddings={"text_encoder": torch.zeros(1, 32)}), base, "embeddings of <rex>")
    assert concept.layers[name].basis.U is U


def test_names_and_triggers_in_use_are_refused(base: StableDiffusion) -> None:
    concept = make_concept(base)
    attach(base, concept)
    refused(concept, base, "adapter named 'rex' is already on")
    refused(replace(concept, name="tom"), base, "already a word")


def test_merged_weights_are_refused(base: StableDiffusion) -> None:
    concept = make_concept(base)
    base.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "style")
    base.unet.fuse_lora()
    refused(concept, base, "style are merged into the weight")
    base.unet.unfuse_lora()
    base.unet.delete_adapters("style")


def test_a_merged_concept_is_not_detached(base: StableDiffusion) -> None:
    concept = make_concept(base)
    attach(base, concept)
    base.unet.fuse_lora()
    with pytest.raises(InputError, match="unmerge"):
        detach(base, concept)
    base.unet.unfuse_lora()
    detach(base, concept)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "1", True, None])
def test_weights_that_are_no_numbers_are_refused(base: StableDiffusion, weight: float) -> None:
    refused(make_concept(base), base, "not a number", weight)


def test_detaching_twice_is_refused(base: StableDiffusion) -> None:
    concept = make_concept(base)
    attach(base, concept)
    detach(base, concept)
    with pytest.raises(InputError, match="not attached"):
        detach(base, concept)


def test_a_concept_of_the_text_encoder_alone(base: StableDiffusion) -> None:
    concept = make_concept(base, targets=("q_proj",))
    assert all(name.startswith("text_encoder.") for name in base.layers() if name in concept.layers)
    attach(base, concept)
    assert not hasattr(base.unet, "peft_config")
    detach(base, concept)


@pytest.mark.parametrize("name", ["train", "keys", "type", "items"])
def test_names_that_torch_uses_itself_are_no_trouble(base: StableDiffusion, name: str) -> None:
    concept = make_concept(base, name)
    shape = structure(base)
    attach(base, concept)
    detach(base, concept)
    assert structure(base) == shape


def test_a_concept_that_cannot_be_attached_whole_leaves_nothing(
    base: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    concept, before = make_concept(base), structure(base)

    def full(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(base.text_encoder, "add_adapter", full)
    with pytest.raises(MemoryError):
        attach(base, concept)
    assert structure(base) == before
    assert not any(parameter.grad is not None for parameter in base.unet.parameters())
