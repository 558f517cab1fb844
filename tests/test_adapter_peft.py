"""The tuner inside PEFT: plain modules, CLIP text models, Llama-style models, saving and loading."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, PeftType, convert_to_lora, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from adapting import assert_same_weights, train, weights
from spectral_fusion.adapter import SpectralConfig, SpectralConv2d, SpectralLayer, SpectralLinear, SpectralModel
from spectral_fusion.adapter import model as tuner
from tiny import tiny_text_encoder, tiny_tokenizer

MODES = ["additive", "rotational"]


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 20), nn.Unflatten(1, (5, 2, 2)), nn.Conv2d(5, 7, 2)
    )


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaForCausalLM(config).eval()


def text_encoder():
    torch.manual_seed(0)
    return tiny_text_encoder(tiny_tokenizer()).eval()


def output(model, x):
    y = model(x)
    return y if isinstance(y, torch.Tensor) else y[0]


MODELS = {
    "plain": (plain, torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), ["0", "2", "4"], 3),
    "llama": (llama, torch.arange(6)[None], None, 4),
    "clip text": (text_encoder, torch.arange(6)[None], None, 8),
}


@pytest.fixture(params=MODELS)
def case(request):
    """(model maker, input, target_modules, number of layers that they match)."""
    return MODELS[request.param]


def spectral_layers(model):
    return [module for module in model.modules() if isinstance(module, SpectralLayer)]


def test_what_the_tuner_takes_from_inside_peft_is_still_there():
    """PEFT's registries, `BufferDict` and these hooks are internal: a new PEFT that moves them must fail here."""
    for registry, entry in (
        (PEFT_TYPE_TO_CONFIG_MAPPING, SpectralConfig),
        (PEFT_TYPE_TO_TUNER_MAPPING, SpectralModel),
        (PEFT_TYPE_TO_PREFIX_MAPPING, "spectral_"),
    ):
        assert registry["SPECTRAL"] == entry
        assert PeftType.LORA in registry
    assert BufferDict(persistent=True).persistent
    assert callable(tuner._maybe_include_all_linear_layers)
    for hook in ("inject_adapter", "_prepare_adapter_config", "_prepare_model", "_create_and_replace"):
        assert hook in vars(BaseTuner)
        assert hook in vars(SpectralModel)
    for hook in ("_move_adapter_to_device_of_base_layer", "merge", "unmerge", "delete_adapter"):
        assert hook in vars(BaseTunerLayer)
        assert hook in vars(SpectralLayer)


@pytest.mark.parametrize("mode", MODES)
def test_attach_train_merge_unload(case, mode):
    make, x, targets, layers = case
    base = make()
    expected, pristine = output(base, x), weights(base)
    model = get_peft_model(base, SpectralConfig(r=2, band=1, mode=mode, target_modules=targets))
    assert len(spectral_layers(model)) == layers
    assert torch.equal(output(model, x), expected)
    train(model, "default")
    changed = output(model, x)
    assert (changed - expected).abs().max() > 1e-4
    with model.disable_adapter():
        assert torch.equal(output(model, x), expected)
    model.merge_adapter()
    assert torch.allclose(output(model, x), changed, atol=1e-5)
    model.unmerge_adapter()
    assert torch.equal(output(model, x), changed)
    unloaded = model.unload()
    assert_same_weights(unloaded, pristine)
    assert torch.equal(output(unloaded, x), expected)


@pytest.mark.parametrize("mode", MODES)
def test_saving_and_loading_needs_no_decomposition(case, mode, tmp_path, monkeypatch):
    make, x, targets, _ = case
    config = SpectralConfig(r=2, band=1, side="bottom", mode=mode, train_s=True, alpha=0.5, target_modules=targets)
    model = get_peft_model(make(), config)
    train(model, "default")
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("spectral_fusion.adapter.model.decompose", None)
    for low_memory in (False, True):
        loaded = PeftModel.from_pretrained(make(), tmp_path, low_cpu_mem_usage=low_memory)
        assert torch.equal(output(loaded, x), output(model, x))
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    found = loaded.peft_config["default"]
    assert (found.r, found.band, found.side, found.mode) == (2, 1, "bottom", mode)
    assert (found.train_s, found.alpha) == (True, 0.5)


def test_only_the_adapter_and_its_band_are_saved(tmp_path):
    model = get_peft_model(plain(), SpectralConfig(r=2, target_modules=["0"]))
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "SPECTRAL"
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 2 * 4 * 2 * (16 + 12 + 1) + 1000


def test_several_adapters_of_one_model():
    base, x = plain(), MODELS["plain"][1]
    expected = base(x)
    model = get_peft_model(base, SpectralConfig(r=2, target_modules=["0", "2"]), adapter_name="rex")
    model.add_adapter("tom", SpectralConfig(r=2, band=1, mode="rotational", target_modules=["2", "4"]))
    for name in ("rex", "tom"):
        train(model, name)
    model.base_model.set_adapter(["rex", "tom"])
    both = model(x)
    model.set_adapter("tom")
    assert (model(x) - both).abs().max() > 1e-4
    model.delete_adapter("tom")
    model.delete_adapter("rex")
    assert torch.equal(model.base_model.model(x), expected)


def test_three_adapters_at_once_are_the_sum_of_their_deltas():
    torch.manual_seed(0)
    base, x = nn.Linear(24, 20), torch.randn(4, 24)
    model = get_peft_model(nn.Sequential(base), SpectralConfig(r=3, target_modules=["0"]), adapter_name="a")
    for band, name in enumerate("bc", start=1):
        model.add_adapter(name, SpectralConfig(r=3, band=band, target_modules=["0"]))
    for seed, name in enumerate("abc"):
        train(model, name, seed=seed)
    model.base_model.set_adapter(["a", "b", "c"])
    layer = model.base_model.model[0]
    total = sum(layer.get_delta_weight(name) for name in "abc")
    assert torch.allclose(model(x), nn.functional.linear(x, base.weight + total, base.bias), atol=1e-5)


def test_adding_an_adapter_leaves_the_trained_one_alone():
    model = get_peft_model(plain(), SpectralConfig(r=2, target_modules=["0"]), adapter_name="rex")
    train(model, "rex")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.endswith(".rex")}
    model.add_adapter("tom", SpectralConfig(r=2, band=1, target_modules=["0"]))
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all(name.endswith(".rex") for name in trainable)


def test_targets_by_pattern_and_exclusion():
    config = SpectralConfig(r=2, target_modules=r".*layers\.1\..*(q|k)_proj", exclude_modules=["k_proj"])
    model = get_peft_model(llama(), config)
    assert model.base_model.targeted_module_names == ["model.layers.1.self_attn.q_proj"]


def test_all_linear_layers():
    model = get_peft_model(plain(), SpectralConfig(r=2, target_modules="all-linear"))
    assert [type(layer) for layer in spectral_layers(model)] == [SpectralLinear, SpectralLinear]


def test_ranks_and_strengths_by_pattern():
    config = SpectralConfig(
        r=2, band=1, alpha=0.5, target_modules=["0", "2", "4"], rank_pattern={"4": 3}, alpha_pattern={"2|4": 2.0}
    )
    first, second, third = spectral_layers(get_peft_model(plain(), config))
    assert isinstance(third, SpectralConv2d)
    assert [layer.r["default"] for layer in (first, second, third)] == [2, 2, 3]
    assert [layer.scaling["default"] for layer in (first, second, third)] == [0.5, 2.0, 2.0]
    assert third.spectral_S["default"].shape == (3,)


def test_an_empty_basis_is_allocated_without_decomposing(monkeypatch):
    monkeypatch.setattr("spectral_fusion.adapter.model.decompose", None)
    config = SpectralConfig(r=2, target_modules=["0"], init_basis=False)
    (layer,) = spectral_layers(get_peft_model(plain(), config))
    assert [tuple(getattr(layer, name)["default"].shape) for name in layer.basis_names] == [(12, 2), (2,), (16, 2)]
    assert torch.count_nonzero(layer.get_delta_weight("default")) == 0


def test_peft_can_convert_it_to_lora():
    torch.manual_seed(0)
    x = MODELS["plain"][1]
    model = get_peft_model(plain(), SpectralConfig(r=2, target_modules=["0", "2"]))
    train(model, "default")
    lora, tensors = convert_to_lora(model, rank=4)
    assert isinstance(lora, LoraConfig)
    restored = get_peft_model(plain(), lora)
    restored.load_state_dict(
        {name.replace("_A.w", "_A.default.w").replace("_B.w", "_B.default.w"): t for name, t in tensors.items()},
        strict=False,
    )
    assert torch.allclose(restored(x), model(x), atol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    gradients = []
    for checkpointing in (False, True):
        model = get_peft_model(llama().train(), SpectralConfig(r=2))
        train(model, "default")
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(torch.arange(6)[None], labels=torch.arange(6)[None]).loss.backward()
        gradients.append(
            [
                parameter.grad
                for parameter in model.parameters()
                if parameter.requires_grad and parameter.grad is not None
            ]
        )
    assert len(gradients[0]) == 8
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=False))
