"""Bad input to the tuner: one line, nothing touched, and the model can be tried again."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from adapting import assert_same_weights, weights
from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.errors import InputError
from tiny import tiny_text_encoder, tiny_tokenizer, tiny_unet

BAD_CONFIGS = {
    "rank 0": {"r": 0},
    "negative band": {"band": -1},
    "fractional rank": {"r": 2.5},
    "unknown side": {"side": "left"},
    "unknown mode": {"mode": "multiplicative"},
    "rank 0 by pattern": {"rank_pattern": {"to_q": 0}},
    "strength NaN": {"alpha": float("nan")},
    "strength by pattern": {"alpha_pattern": {"to_q": "much"}},
}
BAD_FOR_UNET = {
    "band beyond every layer": {"r": 8, "band": 9},
    "band beyond some layers": {"r": 8, "band": 5},
    "band beyond one layer by pattern": {"r": 8, "band": 1, "rank_pattern": {"mid_block.*attn2.to_k": 40}},
    "targets that match nothing": {"target_modules": ["to_queue"]},
    "everything excluded": {"target_modules": ["to_q"], "exclude_modules": ["to_q"]},
    "a layer of another kind": {"target_modules": ["to_q", "norm1"]},
}


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return tiny_unet()


def one_line(error):
    return str(error.value).strip() and "\n" not in str(error.value)


def adapted(model):
    return [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


@pytest.mark.parametrize("settings", BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_settings_out_of_range(settings):
    with pytest.raises(InputError) as error:
        SpectralConfig(**settings)
    assert one_line(error)


@pytest.mark.parametrize("settings", BAD_FOR_UNET.values(), ids=BAD_FOR_UNET)
def test_all_layers_are_checked_before_any_is_touched(unet, settings):
    assert_refused_untouched(unet, settings)


@pytest.mark.parametrize("settings", [{"r": 8, "band": 9}, {"target_modules": ["to_q"]}])
def test_all_layers_of_a_text_encoder_are_checked_before_any_is_touched(settings):
    assert_refused_untouched(tiny_text_encoder(tiny_tokenizer()), settings)


def assert_refused_untouched(model, settings):
    before = weights(model)
    with pytest.raises(InputError) as error:
        model.add_adapter(SpectralConfig(**settings), adapter_name="rex")
    assert one_line(error)
    assert adapted(model) == []
    assert_same_weights(model, before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.add_adapter(SpectralConfig(r=4), adapter_name="rex")
    assert adapted(model)


def test_a_weight_that_is_not_finite(unet):
    unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_v.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        unet.add_adapter(SpectralConfig(r=4), adapter_name="rex")
    assert adapted(unet) == []


def test_a_band_beyond_a_layer_names_the_layer_and_the_numbers(unet):
    with pytest.raises(InputError) as error:
        unet.add_adapter(SpectralConfig(r=8, band=5), adapter_name="rex")
    assert all(part in str(error.value) for part in ("band 5", "rank 8", "48", "32", "to_q"))


def test_a_second_adapter_that_fails_leaves_the_first(unet):
    unet.add_adapter(SpectralConfig(r=4), adapter_name="rex")
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    with pytest.raises(InputError):
        unet.add_adapter(SpectralConfig(r=4, band=50), adapter_name="tom")
    assert list(unet.peft_config) == ["rex"]
    assert unet.active_adapters() == ["rex"]
    after = unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    unet.add_adapter(SpectralConfig(r=4, band=1), adapter_name="tom")


def test_a_peft_model_can_be_tried_again():
    model = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(InputError):
        get_peft_model(model, SpectralConfig(r=4, band=2, target_modules=["0"]))
    peft_model = get_peft_model(model, SpectralConfig(r=4, target_modules=["0"]))
    with pytest.raises(InputError):
        peft_model.add_adapter("rex", SpectralConfig(r=4, band=2, target_modules=["0"]))
    peft_model.add_adapter("rex", SpectralConfig(r=4, band=1, target_modules=["0"]))
    assert isinstance(peft_model, PeftModel)
    assert set(peft_model.peft_config) == {"default", "rex"}


@pytest.mark.parametrize("other", [SpectralConfig(r=4), LoraConfig(target_modules=["to_q"])], ids=["spectral", "lora"])
def test_a_name_that_is_taken(unet, other):
    unet.add_adapter(other, adapter_name="rex")
    before = set(unet.state_dict())
    for attempt in (unet.add_adapter, lambda config, name: inject_adapter_in_model(config, unet, name)):
        with pytest.raises(ValueError, match="already"):
            attempt(SpectralConfig(r=4, band=1), "rex")
    assert set(unet.state_dict()) == before
    assert unet.peft_config == {"rex": other}


@pytest.mark.parametrize("name", ["", "rex.v2", "train", "keys"])
def test_a_name_that_cannot_be_stored(unet, name):
    with pytest.raises(InputError, match="name"):
        unet.add_adapter(SpectralConfig(r=4), adapter_name=name)
    assert adapted(unet) == []


@pytest.mark.parametrize("first", [SpectralConfig(r=4), LoraConfig(target_modules=["to_q"])], ids=["spectral", "lora"])
def test_merged_layers_take_no_new_adapter(unet, first):
    """Their singular vectors would be those of another weight."""
    unet.add_adapter(first, adapter_name="rex")
    unet.fuse_lora()
    with pytest.raises(InputError, match="merged"):
        unet.add_adapter(SpectralConfig(r=4, band=1), adapter_name="tom")
    assert list(unet.peft_config) == ["rex"]
    unet.unfuse_lora()
    unet.add_adapter(SpectralConfig(r=4, band=1), adapter_name="tom")


def test_a_merged_adapter_is_not_deleted(unet):
    unet.add_adapter(SpectralConfig(r=4), adapter_name="rex")
    unet.fuse_lora()
    with pytest.raises(InputError, match="merged"):
        unet.delete_adapters("rex")
    unet.unfuse_lora()
    unet.delete_adapters("rex")


def test_a_model_without_defaults_needs_targets():
    with pytest.raises(InputError, match="target_modules"):
        get_peft_model(nn.Sequential(nn.Linear(8, 8)), SpectralConfig(r=2))


@pytest.mark.parametrize(
    "layer", [nn.Embedding(9, 8), nn.Conv1d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.LayerNorm(8)], ids=str
)
def test_layers_that_cannot_be_adapted(layer):
    model = nn.Sequential(nn.Linear(8, 8), layer)
    with pytest.raises(InputError, match="'1'"):
        get_peft_model(model, SpectralConfig(r=2, target_modules=["0", "1"]))
    assert adapted(model) == []
