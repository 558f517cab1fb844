"""One adapted layer: what it computes, stores, merges."""

import copy
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn

from adapting import train
from spectral_fusion.adapter import SpectralConfig, SpectralConv2d, SpectralLayer, SpectralLinear
from spectral_fusion.spectral import as_matrix, band_overlap, singular_triplets
from spectral_fusion.spectral.svd import Triplets

MODES = ["additive", "rotational"]
LAYERS = {
    "linear": (lambda: nn.Linear(14, 10), (5, 3, 14)),
    "linear without bias": (lambda: nn.Linear(10, 14, bias=False), (10,)),
    "convolution": (lambda: nn.Conv2d(6, 10, 3, padding=1), (2, 6, 8, 8)),
    "strided convolution": (lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1, dilation=2), (2, 6, 9, 9)),
    "circular convolution": (lambda: nn.Conv2d(6, 10, 3, padding="same", padding_mode="circular"), (2, 6, 8, 8)),
    "pointwise convolution": (lambda: nn.Conv2d(12, 10, 1), (2, 12, 4, 4)),
}


def adapted(layer: nn.Module, *, trained: bool = True, **settings: Any) -> SpectralLayer:
    """(layer, the spectral layer that wraps it)."""
    settings = {"r": 3, "band": 1, "target_modules": ["0"], **settings}
    model = get_peft_model(nn.Sequential(layer), SpectralConfig(**settings))
    if trained:
        train(model, "default")
    return model.base_model.model[0]


def seeded(make, shape, dtype=torch.float32):
    torch.manual_seed(0)
    return make().to(dtype), torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("train_s", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_output_is_that_of_the_weight_plus_the_delta(kind, mode, train_s):
    base, x = seeded(*LAYERS[kind], dtype=torch.float64)
    layer = adapted(copy.deepcopy(base), mode=mode, train_s=train_s, alpha=0.7)
    assert type(layer) is (SpectralLinear if isinstance(base, nn.Linear) else SpectralConv2d)
    expected = copy.deepcopy(base)
    up, down = layer.factors("default")
    expected.weight.data += 0.7 * (up @ down).view(base.weight.shape)
    assert (layer(x) - expected(x)).abs().max() < 1e-12
    assert (layer(x) - base(x)).abs().max() > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("train_s", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_new_adapter_changes_no_bit_of_the_output(kind, mode, train_s):
    base, x = seeded(*LAYERS[kind])
    layer = adapted(copy.deepcopy(base), mode=mode, train_s=train_s, trained=False)
    assert torch.equal(layer(x), base(x))


@pytest.mark.parametrize("mode", MODES)
def test_a_new_adapter_may_begin_with_random_values(mode):
    base, x = seeded(*LAYERS["linear"])
    layer = adapted(copy.deepcopy(base), mode=mode, train_s=True, trained=False, init_weights=False)
    assert (layer(x) - base(x)).abs().max() > 1e-3


def test_the_basis_is_the_band_of_the_weight():
    base, _ = seeded(*LAYERS["convolution"])
    layer = adapted(copy.deepcopy(base))
    basis = Triplets(*(getattr(layer, name)["default"] for name in layer.basis_names))
    expected = singular_triplets(base.weight, 3, 6)
    assert all(torch.equal(found, wanted) for found, wanted in zip(basis, expected, strict=True))
    assert band_overlap(basis, singular_triplets(base.weight, 0, 3)) < 1e-5
    assert basis.V.shape == (as_matrix(base.weight).shape[1], 3)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_bottom_band_is_the_last_of_the_weight(kind):
    base, _ = seeded(*LAYERS[kind])
    directions = min(as_matrix(base.weight).shape)
    layer = adapted(copy.deepcopy(base), side="bottom")
    expected = singular_triplets(base.weight, directions - 6, directions - 3)
    assert torch.equal(layer.spectral_V["default"], expected.V)


@pytest.mark.parametrize("mode", MODES)
def test_weight_decay_alone_does_not_move_the_output(mode):
    """A scale that started at one would be decayed towards zero, and the base's singular values with it."""
    base, x = seeded(*LAYERS["linear"])
    layer = adapted(copy.deepcopy(base), mode=mode, train_s=True, trained=False)
    parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5)
    for _ in range(20):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert torch.equal(layer(x), base(x))


@pytest.mark.parametrize("mode", MODES)
def test_only_the_adapter_is_trained(mode):
    base, x = seeded(*LAYERS["linear"])
    layer = adapted(base, mode=mode, train_s=True)
    x.requires_grad_()
    layer(x).square().sum().backward()
    trained = {name for name, parameter in layer.named_parameters() if parameter.grad is not None}
    names = ("A", "B", "c") if mode == "additive" else ("X_U", "X_V", "c")
    assert trained == {f"spectral_{name}.default" for name in names}
    assert all(getattr(layer, f"spectral_{name}")["default"].grad.abs().max() > 0 for name in names)
    assert x.grad is not None


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_the_merged_weight(mode):
    base, x = seeded(*LAYERS["linear"], dtype=torch.float64)
    layer = adapted(copy.deepcopy(base), mode=mode, train_s=True, alpha=0.7)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(layer(x).sin().sum(), trained)
    up, down = layer.factors("default")
    output = nn.functional.linear(x, base.weight + 0.7 * up @ down, base.bias)
    expected = torch.autograd.grad(output.sin().sum(), trained)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(gradients, expected, strict=True))


class _Sizes(torch.utils._python_dispatch.TorchDispatchMode):
    """Record the size of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [out] if isinstance(out, torch.Tensor) else out if isinstance(out, (list, tuple)) else []
        views = {tensor.untyped_storage().data_ptr() for tensor in args if isinstance(tensor, torch.Tensor)}
        for tensor in made:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in views:
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [lambda: nn.Linear(96, 128), lambda: nn.Conv2d(32, 64, 3, padding=1)])
def test_a_training_step_makes_nothing_of_the_size_of_the_weight(make, mode):
    base = make()
    layer = adapted(base, mode=mode, train_s=True, r=2)
    x = torch.randn(4, 96) if isinstance(base, nn.Linear) else torch.randn(1, 32, 4, 4)
    with _Sizes() as sizes:
        layer(x).sum().backward()
    assert 0 < sizes.largest < base.weight.numel() / 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_merging_is_undone_bit_for_bit(kind, mode, dtype):
    base, x = seeded(*LAYERS[kind], dtype=dtype)
    layer = adapted(copy.deepcopy(base), mode=mode)
    apart = layer(x)
    layer.merge()
    assert torch.allclose(layer(x).float(), apart.float(), atol=30 * torch.finfo(dtype).eps)
    assert not torch.equal(layer.weight, base.weight)
    layer.unmerge()
    assert torch.equal(layer.weight, base.weight)
    assert torch.equal(layer(x), apart)


def test_unmerging_uses_the_strength_at_the_time_of_merging():
    base, _ = seeded(*LAYERS["linear"])
    layer = adapted(copy.deepcopy(base))
    layer.set_scale("default", 0.5)
    layer.merge()
    merged = layer.weight.clone()
    layer.set_scale("default", 2.0)
    assert torch.equal(layer.weight, merged)
    layer.unmerge()
    assert torch.equal(layer.weight, base.weight)
    assert layer.scaling["default"] == 2.0


def test_unmerging_leaves_what_others_have_merged_meanwhile():
    base, _ = seeded(*LAYERS["linear"])
    layer = adapted(copy.deepcopy(base))
    layer.merge()
    layer.weight.data += 0.25
    layer.unmerge()
    assert torch.allclose(layer.weight, base.weight + 0.25, atol=1e-6)


def test_a_broken_adapter_does_not_merge_safely():
    base, _ = seeded(*LAYERS["linear"])
    layer = adapted(copy.deepcopy(base))
    layer.spectral_A["default"].data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        layer.merge(safe_merge=True)
    assert not layer.merged
    assert torch.equal(layer.weight, base.weight)


def test_disabling_gives_the_base_even_when_merged():
    base, x = seeded(*LAYERS["linear"])
    layer = adapted(copy.deepcopy(base))
    layer.merge()
    layer.enable_adapters(False)
    assert torch.equal(layer(x), base(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_adapters_of_a_half_precision_base_are_float32(dtype, mode):
    base, x = seeded(*LAYERS["linear"], dtype=dtype)
    layer = adapted(base, mode=mode, train_s=True)
    tensors = {name: tensor.dtype for name, tensor in layer.state_dict().items() if "spectral_" in name}
    assert set(tensors.values()) == {torch.float32}
    y = layer(x)
    assert y.dtype == dtype
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.abs().max() > 0 for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
def test_a_small_delta_on_a_bfloat16_base_keeps_its_digits(size):
    """`U' S' V'^T - U S V^T` in bfloat16 would lose all of the smallest."""
    base, _ = seeded(*LAYERS["linear"], dtype=torch.bfloat16)
    layer = adapted(base, trained=False)
    layer.spectral_A["default"].data += size * torch.randn(10, 3)
    U, S, V = (getattr(layer, name)["default"].double() for name in layer.basis_names)
    A = layer.spectral_A["default"].double()
    expected = (U + A) @ torch.diag(S) @ V.T - U @ torch.diag(S) @ V.T
    assert (layer.get_delta_weight("default") - expected).abs().max() < 1e-6 * expected.abs().max()


@pytest.mark.parametrize("mode", MODES)
def test_a_model_cast_to_half_after_attaching_still_works(mode):
    base, x = seeded(*LAYERS["linear"])
    layer = adapted(base, mode=mode)
    expected = layer(x)
    assert torch.allclose(layer.half()(x.half()).float(), expected, atol=0.02)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_autocast(kind, mode):
    base, x = seeded(*LAYERS[kind])
    layer = adapted(base, mode=mode, train_s=True)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert layer.factors("default").up.dtype == torch.float32
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), expected, atol=0.05)
    y.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_compiling_the_whole_graph(kind, mode):
    base, x = seeded(*LAYERS[kind])
    layer = adapted(base, mode=mode, train_s=True)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    expected = layer(x)
    gradients = torch.autograd.grad(expected.sin().sum(), trained)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    assert torch.allclose(y, expected, atol=1e-5)
    for found, wanted in zip(torch.autograd.grad(y.sin().sum(), trained), gradients, strict=True):
        assert torch.allclose(found, wanted, atol=1e-4)
