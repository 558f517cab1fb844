"""A concept on a pipeline and off again; collecting what was trained; fingerprints of the base."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig

from concepts import delta, make_concept, picture, same_weights, weights_of
from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.concept import Concept, LayerTensors, base_fingerprint
from spectral_fusion.concept.fingerprint import pipeline_layers, same_weight, weight_fingerprint
from spectral_fusion.errors import InputError
from spectral_fusion.pipeline.tokens import add_tokens
from tiny import tiny_pipeline


def structure(pipeline: StableDiffusionPipeline) -> str:
    return f"{pipeline.unet!r}{pipeline.text_encoder!r}{len(pipeline.tokenizer)}"


@pytest.mark.parametrize("mode", ["additive", "rotational"])
def test_attaching_changes_the_picture_and_detaching_restores_everything(
    pipeline: StableDiffusionPipeline, mode: str
) -> None:
    concept = make_concept(pipeline, mode=mode, train_s=True)
    shape, weights, plain = structure(pipeline), weights_of(pipeline), picture(pipeline)
    trainable = {name: p.requires_grad for name, p in pipeline.unet.named_parameters()}
    concept.attach(pipeline)
    assert not torch.equal(picture(pipeline), plain)
    assert not any(p.requires_grad for name, p in pipeline.unet.named_parameters() if "spectral_" in name)
    concept.detach(pipeline)
    assert structure(pipeline) == shape
    assert same_weights(weights_of(pipeline), weights)
    assert {name: p.requires_grad for name, p in pipeline.unet.named_parameters()} == trainable
    assert torch.equal(picture(pipeline), plain)
    concept.attach(pipeline)


def test_the_attached_delta_is_the_concepts_times_the_weight(pipeline: StableDiffusionPipeline) -> None:
    concept = make_concept(pipeline, alpha=0.5)
    concept.attach(pipeline, weight=0.6)
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = pipeline.unet.get_submodule(name.removeprefix("unet."))
    torch.testing.assert_close(layer.get_delta_weight("rex"), 0.6 * delta(concept.factors(name)))


def test_two_concepts_add_up_and_leave_in_any_order(pipeline: StableDiffusionPipeline) -> None:
    rex, tom = make_concept(pipeline), make_concept(pipeline, "tom", band=1, seed=1)
    tom.attach(pipeline, 0.7)
    only_tom = picture(pipeline, "a <tom> dog")
    rex.attach(pipeline)
    assert not torch.equal(picture(pipeline, "a <tom> dog"), only_tom)
    rex.detach(pipeline)
    assert torch.equal(picture(pipeline, "a <tom> dog"), only_tom)
    tom.detach(pipeline)
    assert not hasattr(pipeline.unet, "peft_config")


def test_a_stock_lora_on_the_same_layers_stays(pipeline: StableDiffusionPipeline) -> None:
    lora = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    pipeline.unet.add_adapter(lora, "style")
    styled, concept = picture(pipeline), make_concept(pipeline)
    concept.attach(pipeline)
    assert not torch.equal(picture(pipeline), styled)
    concept.detach(pipeline)
    assert torch.equal(picture(pipeline), styled)
    assert any(p.requires_grad for name, p in pipeline.unet.named_parameters() if "lora_A.style" in name)


def test_what_was_trained_is_collected_and_attaches_the_same(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    vectors = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    add_tokens(pipeline, "<rex>", vectors)
    for model, targets in ((pipeline.unet, ["to_q", "conv1"]), (pipeline.text_encoder, ["q_proj"])):
        model.add_adapter(SpectralConfig(r=4, band=1, train_s=True, target_modules=targets), "in_training")
        for name, parameter in model.named_parameters():
            if "spectral_" in name:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    trained = picture(pipeline)
    names = {"name": "rex", "trigger": "<rex>", "class_word": "dog"}
    concept = Concept.from_pipeline(pipeline, "in_training", **names, base_name="tiny", training={"steps": 3})
    assert (concept.band.index, concept.band.rank, concept.directions) == (1, 4, 32)
    assert torch.equal(concept.embeddings, vectors)
    path = concept.save(tmp_path / "rex.safetensors", dtype=torch.float32)
    fresh = tiny_pipeline()
    Concept.load(path).attach(fresh)
    assert torch.equal(picture(fresh), trained)


@pytest.mark.parametrize("pattern", [{"rank_pattern": {"to_q": 2}}, {"alpha_pattern": {"to_q": 2.0}}])
def test_layers_of_several_ranks_or_strengths_are_not_collected(
    pipeline: StableDiffusionPipeline, pattern: dict
) -> None:
    pipeline.unet.add_adapter(SpectralConfig(r=4, target_modules=["to_q", "to_k"], **pattern), "rex")
    add_tokens(pipeline, "<rex>", torch.ones(1, pipeline.text_encoder.config.hidden_size))
    with pytest.raises(InputError, match="leave out rank_pattern and alpha_pattern") as caught:
        Concept.from_pipeline(pipeline, "rex", name="rex", trigger="<rex>", class_word="dog")
    assert "to_q" in str(caught.value)


@pytest.mark.parametrize("side", ["top", "bottom"])
def test_a_scale_that_was_trained_comes_back_as_it_was(pipeline: StableDiffusionPipeline, side: str) -> None:
    concept = make_concept(pipeline, mode="rotational", train_s=True, side=side)
    concept.attach(pipeline)
    names = {"name": "rex", "trigger": "<rex>", "class_word": "dog"}
    found = Concept.from_pipeline(pipeline, "rex", **names)
    assert found.band == concept.band
    for key, layer in concept.layers.items():
        for part, tensor in layer.tensors().items():
            assert torch.allclose(found.layers[key].tensors()[part], tensor, rtol=0, atol=1e-6)


def test_collecting_what_is_not_there_is_refused(pipeline: StableDiffusionPipeline) -> None:
    names = {"name": "rex", "trigger": "<rex>", "class_word": "dog"}
    with pytest.raises(InputError, match="no spectral adapter 'in_training'"):
        Concept.from_pipeline(pipeline, "in_training", **names)
    pipeline.unet.add_adapter(SpectralConfig(r=4, target_modules=["to_q"]), "in_training")
    with pytest.raises(InputError, match="trigger <rex> is not in this pipeline"):
        Concept.from_pipeline(pipeline, "in_training", **names)


def test_attaching_needs_no_decomposition(pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    concept = make_concept(pipeline)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("decomposed while attaching")

    monkeypatch.setattr(torch.linalg, "svd", forbidden)
    concept.attach(pipeline)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_base_in_half_precision_is_the_same_base(dtype: torch.dtype) -> None:
    single, half = tiny_pipeline(), tiny_pipeline(dtype=dtype)
    assert base_fingerprint(single) == base_fingerprint(half)
    concept = make_concept(single)
    concept.attach(half)
    layer = half.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    assert layer.spectral_A["rex"].dtype == torch.float32


def test_fingerprints_see_small_changes_and_scale(shared_pipeline: StableDiffusionPipeline) -> None:
    weight = shared_pipeline.text_encoder.encoder.layers[0].self_attn.q_proj.weight.detach()
    generator = torch.Generator().manual_seed(0)
    tuned = weight + 0.02 * weight.std() * torch.randn(weight.shape, generator=generator)
    assert same_weight(weight_fingerprint(weight), weight_fingerprint(weight.clone()))
    for other in (tuned, 1.05 * weight, weight.T, weight.flatten()):
        assert not same_weight(weight_fingerprint(weight), weight_fingerprint(other))


def test_fingerprints_do_not_see_adapters_and_tokens(pipeline: StableDiffusionPipeline) -> None:
    before = base_fingerprint(pipeline)
    make_concept(pipeline).attach(pipeline)
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"]), "style")
    assert base_fingerprint(pipeline) == before


def refused(concept: Concept, pipeline: StableDiffusionPipeline, words: str, weight: float = 1.0) -> None:
    """Attaching raises one line with `words` and changes nothing."""
    shape, weights = structure(pipeline), weights_of(pipeline)
    with pytest.raises(InputError, match=words) as caught:
        concept.attach(pipeline, weight)
    assert "\n" not in str(caught.value)
    assert structure(pipeline) == shape
    assert same_weights(weights_of(pipeline), weights)


def test_another_base_is_refused_with_both_fingerprints(pipeline: StableDiffusionPipeline) -> None:
    other = tiny_pipeline(seed=1)
    concept = make_concept(other)
    refused(concept, pipeline, f"{base_fingerprint(other)} tiny, this is base {base_fingerprint(pipeline)}")


def test_layers_that_do_not_fit_are_refused(pipeline: StableDiffusionPipeline) -> None:
    concept = make_concept(pipeline)
    name, layer = next((name, layer) for name, layer in concept.layers.items() if len(layer.basis.U) == 64)

    def with_layer(key: str, tensors: LayerTensors) -> Concept:
        layers = {k: v for k, v in concept.layers.items() if k != name} | {key: tensors}
        prints = {k: v for k, v in concept.fingerprints.items() if k != name} | {key: concept.fingerprints[name]}
        return replace(concept, layers=layers, fingerprints=prints)

    refused(with_layer("unet.nowhere.to_q", layer), pipeline, "adapts 'unet.nowhere.to_q', which this base lacks")
    U = layer.basis.U
    small = LayerTensors(layer.basis._replace(U=U[:48]), layer.trained | {"A": layer.trained["A"][:48]})
    refused(with_layer(name, small), pipeline, "of shape")
    refused(replace(concept, embeddings=torch.zeros(1, 32)), pipeline, "embeddings of <rex>")
    assert concept.layers[name].basis.U is U


def test_names_and_triggers_in_use_are_refused(pipeline: StableDiffusionPipeline) -> None:
    concept = make_concept(pipeline)
    concept.attach(pipeline)
    refused(concept, pipeline, "adapter named 'rex' is already on")
    refused(replace(concept, name="tom"), pipeline, "already a word")


def test_merged_weights_are_refused(pipeline: StableDiffusionPipeline) -> None:
    concept = make_concept(pipeline)
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "style")
    pipeline.unet.fuse_lora()
    refused(concept, pipeline, "style are merged into the weight")
    pipeline.unet.unfuse_lora()
    pipeline.unet.delete_adapters("style")


def test_a_merged_concept_is_not_detached(pipeline: StableDiffusionPipeline) -> None:
    concept = make_concept(pipeline)
    concept.attach(pipeline)
    pipeline.unet.fuse_lora()
    with pytest.raises(InputError, match="unmerge"):
        concept.detach(pipeline)
    pipeline.unet.unfuse_lora()
    concept.detach(pipeline)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "1", True, None])
def test_weights_that_are_no_numbers_are_refused(pipeline: StableDiffusionPipeline, weight: float) -> None:
    refused(make_concept(pipeline), pipeline, "not a number", weight)


def test_detaching_twice_is_refused(pipeline: StableDiffusionPipeline) -> None:
    concept = make_concept(pipeline)
    concept.attach(pipeline)
    concept.detach(pipeline)
    with pytest.raises(InputError, match="not attached"):
        concept.detach(pipeline)


def test_a_concept_of_the_text_encoder_alone(pipeline: StableDiffusionPipeline) -> None:
    concept = make_concept(pipeline, targets=("q_proj",))
    assert all(name.startswith("text_encoder.") for name in pipeline_layers(pipeline) if name in concept.layers)
    concept.attach(pipeline)
    assert not hasattr(pipeline.unet, "peft_config")
    concept.detach(pipeline)


@pytest.mark.parametrize("name", ["train", "keys", "type", "items"])
def test_names_that_torch_uses_itself_are_no_trouble(pipeline: StableDiffusionPipeline, name: str) -> None:
    concept = make_concept(pipeline, name)
    shape = structure(pipeline)
    concept.attach(pipeline)
    concept.detach(pipeline)
    assert structure(pipeline) == shape
