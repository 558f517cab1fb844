"""The tuner on language models: every architecture it should fit, heads, types, quantised layers, export to LoRA."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.pytorch_utils import Conv1D

from adapting import assert_same_weights, train, weights
from spectral_fusion.adapter import SpectralConfig, SpectralLayer, as_lora, save_as_lora
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band, decompose

IDS = torch.arange(6)[None]
DECODER = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16))


def t5():
    return T5ForConditionalGeneration(
        T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0)
    )


def deberta():
    config = DebertaV2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=3,
        initializer_range=0.3,  # or the head sees next to nothing
    )
    return DebertaV2ForSequenceClassification(config)


# maker, inputs, layers that "all-linear" matches
MODELS = {
    "llama": (lambda: LlamaForCausalLM(LlamaConfig(**DECODER)), {}, 14),
    "mistral": (lambda: MistralForCausalLM(MistralConfig(**DECODER)), {}, 14),
    "qwen2": (lambda: Qwen2ForCausalLM(Qwen2Config(**DECODER)), {}, 14),
    "gemma": (lambda: GemmaForCausalLM(GemmaConfig(**DECODER, head_dim=8)), {}, 14),
    "gpt2": (gpt2, {}, 8),
    "t5": (t5, {"labels": IDS}, 32),
    "deberta": (deberta, {}, 13),
}


def make(name):
    torch.manual_seed(0)
    return MODELS[name][0]().eval()


def logits(model, name, **changes):
    with torch.no_grad():
        return model(input_ids=IDS, **(MODELS[name][1] | changes)).logits


def spectral_layers(model):
    return [module for module in model.modules() if isinstance(module, SpectralLayer)]


@pytest.mark.parametrize("mode", ["additive", "rotational"])
@pytest.mark.parametrize("name", MODELS)
def test_all_linear_layers_train_merge_save_and_become_a_lora(name, mode, tmp_path):
    base = make(name)
    expected, pristine = logits(base, name), weights(base)
    task = "SEQ_CLS" if name == "deberta" else None
    config = SpectralConfig(r=2, mode=mode, side="bottom", target_modules="all-linear", task_type=task)
    model = get_peft_model(base, config).eval()
    assert len(spectral_layers(model)) == MODELS[name][2]
    assert torch.equal(logits(model, name), expected)
    train(model, "default")
    changed = logits(model, name)
    assert (changed - expected).abs().max() > 1e-4
    model.save_pretrained(tmp_path / "own")
    save_as_lora(model, tmp_path / "lora")
    for folder, kind in (("own", SpectralLayer), ("lora", LoraLayer)):
        loaded = PeftModel.from_pretrained(make(name), tmp_path / folder).eval()
        assert any(isinstance(module, kind) for module in loaded.modules())
        assert torch.allclose(logits(loaded, name), changed, atol=1e-5)
    model.merge_adapter()
    assert torch.allclose(logits(model, name), changed, atol=1e-5)
    model.unmerge_adapter()
    assert torch.equal(logits(model, name), changed)
    if task is None:  # with a head the unloaded model keeps the trained one
        assert_same_weights(model.unload(), pristine)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "deberta", "gemma"])
def test_architectures_have_default_targets(name):
    assert spectral_layers(get_peft_model(make(name), SpectralConfig(r=2)))


def test_the_conv1d_of_gpt2_is_decomposed_as_out_by_in():
    base = make("gpt2")
    weight = base.transformer.h[0].attn.c_attn.weight.detach().T
    expected = decompose({"c_attn": weight}, Band(1, 2))["c_attn"]
    model = get_peft_model(base, SpectralConfig(r=2, band=1, target_modules=["c_attn"]))
    layer = model.base_model.model.transformer.h[0].attn.c_attn
    assert torch.equal(layer.spectral_U["default"], expected.U)
    assert (layer.in_features, layer.out_features) == (16, 48)
    assert layer.get_delta_weight("default").shape == layer.weight.shape == (16, 48)


def test_layers_say_their_features():
    layers = nn.Sequential(nn.Linear(5, 7), nn.Conv2d(4, 6, 3), Conv1D(9, 8))
    model = get_peft_model(layers, SpectralConfig(r=2, target_modules=["0", "1", "2"]))
    assert [(m.in_features, m.out_features) for m in spectral_layers(model)] == [(5, 7), (4, 6), (8, 9)]


def test_a_head_is_trained_in_full_and_saved(tmp_path):
    model = get_peft_model(make("deberta"), SpectralConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("classifier.modules_to_save" in name for name in trained)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    expected = logits(model.eval(), "deberta")
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make("deberta"), tmp_path).eval()
    assert torch.allclose(logits(loaded, "deberta"), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [True, False])
def test_adapters_are_float32_unless_the_type_of_the_base_is_asked_for(dtype, autocast, tmp_path):
    wanted = torch.float32 if autocast else dtype
    model = get_peft_model(make("llama").to(dtype), SpectralConfig(r=2), autocast_adapter_dtype=autocast)
    model.add_adapter("other", SpectralConfig(r=2, band=1), autocast_adapter_dtype=autocast)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make("llama").to(dtype), tmp_path, autocast_adapter_dtype=autocast)
    for one in (model, loaded):
        assert {p.dtype for name, p in one.named_parameters() if "spectral_" in name} == {wanted}
        assert {p.dtype for layer in spectral_layers(one) for p in layer.spectral_U.values()} == {torch.float32}
        assert one(input_ids=IDS).logits.dtype == dtype


def test_a_lora_of_layers_of_several_ranks_computes_the_same():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 8), nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 2))
    x = torch.randn(4, 12)
    config = SpectralConfig(r=2, target_modules=["0", "2", "4"], rank_pattern={"2": 3}, alpha_pattern={"0": 0.5})
    model = get_peft_model(base, config)
    train(model, "default")
    expected = model(x)
    lora, tensors = as_lora(model)
    assert (lora.r, lora.lora_alpha) == (6, 6)
    fresh = get_peft_model(model.unload(), lora)
    missing = fresh.load_state_dict(
        {key.replace(".weight", ".default.weight"): tensor for key, tensor in tensors.items()}, strict=False
    )
    assert not missing.unexpected_keys
    assert torch.allclose(fresh(x), expected, atol=1e-6)


def test_a_lora_of_an_adapter_that_is_not_there_is_refused():
    model = get_peft_model(make("llama"), SpectralConfig(r=2))
    with pytest.raises(InputError, match="'rex'"):
        as_lora(model, "rex")


class Quantised(nn.Linear):
    """What quantised layers have in common: an integer weight of another shape, and a forward that knows it."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features, bias=False)
        self.original = layer.weight.data
        self.weight = nn.Parameter(torch.zeros(layer.weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.original)


def test_a_quantised_layer_needs_the_bands_of_before():
    torch.manual_seed(0)
    plain = nn.Linear(12, 10, bias=False)
    x = torch.randn(3, 12)
    with pytest.raises(InputError, match="quantised") as error:
        get_peft_model(nn.Sequential(Quantised(plain)), SpectralConfig(r=2, target_modules=["0"]))
    assert "\n" not in str(error.value)
    bases = decompose({"0": plain.weight}, Band(0, 2))
    model = get_peft_model(nn.Sequential(Quantised(plain)), SpectralConfig(r=2, target_modules=["0"], init_basis=bases))
    reference = get_peft_model(nn.Sequential(plain), SpectralConfig(r=2, target_modules=["0"]))
    for one in (model, reference):
        train(one, "default")
    assert torch.allclose(model(x), reference(x), atol=1e-6)
    model(x).sum().backward()
    with pytest.raises(InputError, match="quantised"):
        model.merge_adapter()
