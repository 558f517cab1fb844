"""Activation energy and overlap against brute force on tiny layers."""

import pytest
import torch
from torch import nn

from judging import Named
from spectral_fusion.base.live import apply_delta
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.evaluate.interference import energy_matrix, measure_energy, overlap_matrix
from spectral_fusion.spectral import Factors


def random_factors(rows: int, columns: int, seed: int, rank: int = 2) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator))


@torch.no_grad()
def test_energy_of_a_linear_layer_is_the_ratio_of_norms() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 4)
    first, second = (Named(name, layers={"a": random_factors(4, 5, seed)}) for seed, name in enumerate(("rex", "tom")))
    inputs = [torch.randn(3, 5), torch.randn(2, 7, 5)]
    with measure_energy({"a": layer}, [first, second]) as energies:
        for x in inputs:
            layer(x)
    x = torch.cat([part.flatten(0, -2) for part in inputs])
    base = torch.linalg.norm(x @ layer.weight.T)
    brute = [float(torch.linalg.norm(x @ (d.up @ d.down).T) / base) for d in (first.layers["a"], second.layers["a"])]
    assert energies() == pytest.approx(brute, rel=1e-5)


@torch.no_grad()
def test_energy_is_averaged_over_the_layers_that_an_adapter_has() -> None:
    layers = {"a": nn.Linear(5, 4), "b": nn.Linear(5, 4)}
    deltas = {name: random_factors(4, 5, seed) for seed, name in enumerate(layers)}
    both, one = Named("rex", layers=deltas), Named("tom", layers={"a": deltas["a"]})
    x = torch.randn(3, 5)
    with measure_energy(layers, [both, one]) as energies:
        for layer in layers.values():
            layer(x)
    ratios = [
        float(torch.linalg.norm(x @ (d.up @ d.down).T) / torch.linalg.norm(x @ layers[name].weight.T))
        for name, d in deltas.items()
    ]
    assert energies() == pytest.approx([sum(ratios) / 2, ratios[0]], rel=1e-5)


@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"padding": 1}, {"dilation": 2}])
def test_a_delta_on_a_convolution_is_the_convolution_with_it(settings: dict[str, int]) -> None:
    layer = nn.Conv2d(3, 4, 3, bias=False, **settings)
    delta = random_factors(4, 27, seed=0)
    x = torch.randn(2, 3, 9, 9)
    applied = apply_delta(layer, x, delta)
    with torch.no_grad():
        layer.weight.copy_((delta.up @ delta.down).view_as(layer.weight))
    assert torch.allclose(applied, layer(x), atol=1e-5)


def test_watching_changes_nothing_and_ends() -> None:
    layer = nn.Linear(5, 4)
    x = torch.randn(3, 5)
    before = layer(x)
    adapter = Named("rex", layers={"a": random_factors(4, 5, 0)})
    with measure_energy({"a": layer}, [adapter]):
        assert torch.equal(layer(x), before)
    assert not layer._forward_hooks


@torch.no_grad()
def test_energy_matrix_has_a_row_for_each_delta_and_a_column_for_each_prompt(base: StableDiffusion) -> None:
    layer = base.unet.time_embedding.linear_1
    name = "unet.time_embedding.linear_1"
    adapters = [
        Named(who, layers={name: random_factors(layer.out_features, layer.in_features, s)})
        for s, who in enumerate("ab")
    ]
    inputs = {who: torch.randn(2, layer.in_features) for who in "ab"}
    matrix = energy_matrix(base, adapters, lambda adapter: layer(inputs[adapter.name]))
    for i, j in ((0, 1), (1, 0), (0, 0)):
        d, x = adapters[i].layers[name], inputs["ab"[j]]
        brute = torch.linalg.norm(x @ (d.up @ d.down).T) / torch.linalg.norm(x @ layer.weight.T)
        assert matrix[i][j] == pytest.approx(float(brute), rel=1e-5)


def test_overlap_is_symmetric_one_with_itself_and_zero_for_orthogonal_deltas() -> None:
    eye = torch.eye(4)
    first = Named("rex", layers={"a": Factors(eye[:, :1], eye[:1])})
    second = Named("tom", layers={"a": Factors(eye[:, 1:2], eye[1:2])})
    scaled = Named("kit", layers={"a": Factors(-3 * eye[:, :1], eye[:1])})
    assert overlap_matrix([first, second, scaled]) == [
        pytest.approx([1, 0, 1]),
        pytest.approx([0, 1, 0]),
        pytest.approx([1, 0, 1]),
    ]
