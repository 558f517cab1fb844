# Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0
"""Spectral adapters on plain modules: what the paper says of them, and what PEFT asks of a tuner."""

import itertools

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.spectral import SpectralConfig, SpectralConv2d, SpectralLayer
from peft.tuners.spectral.layer import singular_band
from torch import nn
from transformers.pytorch_utils import Conv1D

MODES = ("additive", "rotational")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.first = nn.Linear(12, 20)
        self.second = Conv1D(16, 20)

    def forward(self, x):
        x = self.relu(self.conv(x)).mean((2, 3))
        return self.second(self.relu(self.first(x)))


TARGETS = ["conv", "first", "second"]


def make(**settings):
    torch.manual_seed(0)
    config = SpectralConfig(**{"r": 4, "target_modules": TARGETS, "init_weights": False} | settings)
    return get_peft_model(Small(), config).eval()


def inputs():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def layers(model):
    return [module for module in model.modules() if isinstance(module, SpectralLayer)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("train_s", [False, True])
def test_begins_without_a_change(mode, train_s):
    torch.manual_seed(0)
    plain = Small().eval()
    assert torch.equal(make(mode=mode, train_s=train_s, init_weights=True)(inputs()), plain(inputs()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("train_s", [False, True])
@pytest.mark.parametrize("side", ["top", "bottom"])
def test_delta_is_the_formula(mode, train_s, side):
    for layer in layers(make(mode=mode, train_s=train_s, side=side, band=1)):
        weight = layer.get_base_matrix().double()
        U, S, V = (getattr(layer, f"spectral_{name}")["default"].double() for name in "USV")
        values = torch.linalg.svdvals(weight)
        own = values[4:8] if side == "top" else values[len(values) - 8 : len(values) - 4]
        assert torch.allclose(S, own, atol=1e-5)
        c = layer.spectral_c["default"].double() if train_s else torch.zeros_like(S)
        if mode == "additive":
            A, B = layer.spectral_A["default"].double(), layer.spectral_B["default"].double()
            wanted = (U + A) * (S + c) @ (V + B).T - U * S @ V.T
        else:
            rotations = []
            for name in ("spectral_X_U", "spectral_X_V"):
                X = getattr(layer, name)["default"].double()
                K, eye = (X - X.T) / 2, torch.eye(4, dtype=torch.float64)
                rotations.append((eye - K) @ torch.linalg.inv(eye + K))
            assert torch.allclose(rotations[0] @ rotations[0].T, torch.eye(4, dtype=torch.float64))
            wanted = U @ (rotations[0] * (S * (1 + c)) @ rotations[1].T - torch.diag(S)) @ V.T
        up, down = layer.get_factors("default")
        assert torch.allclose((up @ down).double(), wanted, atol=1e-5)


def test_rank_is_twice_that_of_a_lora_of_as_many_parameters():
    for mode, rank in (("additive", 8), ("rotational", 4)):
        for layer in layers(make(mode=mode)):
            up, down = layer.get_factors("default")
            assert torch.linalg.matrix_rank(up.double() @ down.double()) == min(rank, *layer.get_base_matrix().shape)


def test_rotational_adapters_in_disjoint_bands_are_orthogonal():
    weight = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    deltas = []
    for band in (0, 1):
        torch.manual_seed(band)
        linear = nn.Linear(12, 20)
        linear.weight.data = weight.clone()
        config = SpectralConfig(r=4, band=band, mode="rotational", target_modules=["0"], init_weights=False)
        (layer,) = layers(get_peft_model(nn.Sequential(linear), config))
        deltas.append(layer.get_delta_weight("default").double())
    assert (deltas[0].T @ deltas[1]).abs().max() < 1e-5
    assert (deltas[0] @ deltas[1].T).abs().max() < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_only_the_adapter_trains(mode):
    model = make(mode=mode, init_weights=True, train_s=True).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    basis = [layer.spectral_U["default"].clone() for layer in layers(model)]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs()).square().sum().backward()
        optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert moved
    assert all(".spectral_" in name for name in moved)
    assert all(torch.equal(a, layer.spectral_U["default"]) for a, layer in zip(basis, layers(model), strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_merged_is_unmerged(mode):
    model = make(mode=mode, alpha=0.7)
    before, weights = model(inputs()), [layer.get_base_matrix().clone() for layer in layers(model)]
    model.merge_adapter(safe_merge=True)
    assert torch.allclose(model(inputs()), before, atol=1e-4)
    for layer in layers(model):
        layer.set_scale("default", 0.0)  # what is taken out is what was put in
    model.unmerge_adapter()
    for weight, layer in zip(weights, layers(model), strict=True):
        assert torch.allclose(weight, layer.get_base_matrix(), atol=1e-5)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_saved_adapter_holds_its_band(tmp_path, mode, low_cpu_mem_usage):
    model = make(mode=mode, train_s=True, rank_pattern={"first": 2}, alpha_pattern={"second": 0.5})
    model.save_pretrained(tmp_path)
    torch.manual_seed(0)
    loaded = PeftModel.from_pretrained(Small(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.allclose(loaded(inputs()), model(inputs()), atol=1e-6)


def test_two_adapters_on_one_model():
    model = make()
    one = model(inputs())
    model.add_adapter("other", SpectralConfig(r=2, band=2, target_modules=TARGETS, init_weights=False))
    assert torch.equal(model(inputs()), one)
    model.set_adapter("other")
    assert not torch.allclose(model(inputs()), one)
    model.base_model.set_adapter(["default", "other"])
    both = model(inputs())
    torch.manual_seed(0)
    plain = Small().eval()
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, SpectralLayer):
                deltas = [module.get_delta_weight(adapter) for adapter in ("default", "other")]
                plain.get_submodule(name.removeprefix("base_model.model.")).weight += sum(deltas)
    assert torch.allclose(plain(inputs()), both, atol=1e-4)
    model.delete_adapter("other")
    model.set_adapter("default")
    assert torch.equal(model(inputs()), one)


def test_half_precision_base_keeps_the_band_in_float32():
    torch.manual_seed(0)
    config = SpectralConfig(r=4, target_modules=["first"])
    (layer,) = layers(get_peft_model(Small().to(torch.bfloat16), config))
    assert layer.spectral_U["default"].dtype == layer.spectral_A["default"].dtype == torch.float32
    (layer,) = layers(get_peft_model(Small().to(torch.bfloat16), config, autocast_adapter_dtype=False))
    assert layer.spectral_A["default"].dtype == torch.bfloat16


def test_convolution_keeps_its_stride_and_padding():
    (layer,) = [layer for layer in layers(make()) if isinstance(layer, SpectralConv2d)]
    base = layer.get_base_layer()
    wanted = nn.functional.conv2d(inputs(), base.weight + layer.get_delta_weight("default"), base.bias, 2, 1)
    assert torch.allclose(layer(inputs()), wanted, atol=1e-5)


def test_bands_of_one_side_share_no_direction():
    weight = torch.randn(12, 30)
    bands = [singular_band(weight, band, 3, side) for side in ("top", "bottom") for band in (0, 1)]
    for first, second in itertools.combinations(bands, 2):
        assert (first.U.T @ second.U).abs().max() < 1e-5


@pytest.mark.parametrize(
    "settings", [{"mode": "other"}, {"side": "left"}, {"r": 0}, {"band": -1}, {"alpha": float("nan")}]
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        SpectralConfig(**settings)


def test_band_too_deep_is_refused_with_its_numbers():
    with pytest.raises(ValueError, match=r"needs 16 singular directions.*has 12"):
        make(r=8, band=1)


def test_layer_of_another_kind_is_refused():
    with pytest.raises((TypeError, AttributeError)):
        make(target_modules=["relu"])
