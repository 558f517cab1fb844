"""Training beside a quantised denoiser. Each scheme is tested where its library is installed."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from spectral_fusion.adapter.kinds import is_quantised
from spectral_fusion.base import quantise as module
from spectral_fusion.base.load import base_of, open_base
from spectral_fusion.base.quantise import LIBRARY, check_scheme, dequantised, is_chosen, quantise, stored_bytes
from spectral_fusion.concept import Concept, Library
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.training import TrainConfig, train_concept
from spectral_fusion.training.many import job as many
from tiny import tiny_base, tiny_pipeline
from tiny_flow import tiny_klein
from training import draw_photos

INSTALLED = [scheme for scheme, name in LIBRARY.items() if importlib.util.find_spec(name)]
SCHEMES = [
    pytest.param(scheme, marks=pytest.mark.skipif(scheme not in INSTALLED, reason=f"{name} is not installed"))
    for scheme, name in LIBRARY.items()
]
FORWARD = {"int8": 0.01, "fp8": 0.05, "nf4": 0.15}
"""How far the answer of the tiny denoiser moves at the most, over its norm."""


def trained(folder: Path, base: Path, library: Library, **changes: Any) -> Concept:
    config = TrainConfig(
        **{"name": "rex", "class_word": "dog", "base": str(base), "rank": 4, "steps": 4, "distillation_prompts": 0}
        | changes
    )
    return train_concept(draw_photos(folder / "photos"), config, library=library)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_and_answers_move_no_further_than_said(scheme: Any) -> None:
    base, torch_seed = tiny_base(), torch.Generator().manual_seed(0)
    noisy, times = torch.randn(2, 4, 16, 16, generator=torch_seed), torch.tensor([100, 700])
    told = base.condition(["a dog", "a red cat"])
    plain = {name: layer.weight.detach().clone() for name, layer in base.layers().items()}
    with torch.no_grad():
        before = base.predict(noisy, times, told)
        found = quantise(base, scheme)
        after = base.predict(noisy, times, told)
    assert (after - before).norm() < FORWARD[scheme] * before.norm()
    layers = base.layers()
    assert found.layers.keys() == found.errors.keys()
    assert all(is_quantised(layers[name]) for name in found.layers)
    for name in found.layers:
        weight, moved = plain[name], dequantised(layers[name]).float() - plain[name]
        assert found.errors[name] == pytest.approx(float(moved.norm() / weight.norm()), rel=1e-4)
        if scheme == "int8":
            assert (moved.abs() <= weight.abs().amax(1, keepdim=True) / 254 * 1.01).all()
        elif scheme == "fp8":
            least = weight.abs().amax(1, keepdim=True) / 448 * 2**-9
            assert (moved.abs() <= torch.maximum(weight.abs() / 16, least) * 1.01).all()
        else:
            blocks = weight.reshape(-1, 64).abs().amax(1, keepdim=True)
            assert (moved.reshape(-1, 64).abs() <= 0.153 * blocks).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_it_was_is_remembered_and_nothing_goes_into_it(scheme: Any) -> None:
    base, plain = tiny_base(), tiny_base()
    quantise(base, scheme)
    assert base.fingerprint == plain.fingerprint
    assert all(
        base.layer_fingerprint(name, layer) == plain.layer_fingerprint(name, plain.layers()[name])
        for name, layer in base.layers().items()
    )
    for refused in (lambda: base.save("nowhere"), lambda: quantise(base, scheme)):
        with pytest.raises(InputError, match="quantised to"):
            refused()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_trains_saves_loads_fuses_and_draws(scheme: Any, tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "base")
    library = Library(tmp_path / "library")
    trained(tmp_path, tmp_path / "base", library, quantize=scheme)
    concept = library.get("rex")
    assert concept.training["quantize"] == scheme
    base = open_base(tmp_path / "base")
    layers = base.layers()
    for name, layer in concept.layers.items():  # its band is that of the plain weight: U^T W V = diag(S)
        inner = layer.basis.U.T @ layers[name].weight.detach() @ layer.basis.V
        assert (inner - torch.diag(layer.basis.S)).abs().max() < 1e-3 * layer.basis.S.max()  # kept in half precision
    assert any(float(tensor.abs().max()) > 0 for layer in concept.layers.values() for tensor in layer.trained.values())
    with pytest.raises(InputError, match="quantised to"):
        fuse(_quantised(tmp_path / "base", scheme), {concept: 1.0})
    fusion = fuse(base, {concept: 1.0})
    (picture,) = generate(base, GenerateConfig("a <rex> dog", num_inference_steps=2, sampler="Euler"))
    assert picture.image.size == (32, 32)
    fusion.undo()


def _quantised(folder: Path, scheme: Any) -> Any:
    base = open_base(folder)
    quantise(base, scheme)
    return base


@pytest.mark.skipif("int8" not in INSTALLED, reason="torchao is not installed")
def test_a_second_concept_learns_beside_the_first(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "base")
    library = Library(tmp_path / "library")
    trained(tmp_path, tmp_path / "base", library)
    changes = {"quantize": "int8", "low_memory": True, "distillation_prompts": 2}
    trained(tmp_path, tmp_path / "base", library, name="tom", class_word="cat", **changes)
    assert library.get("tom").base == library.get("rex").base


@pytest.mark.skipif("nf4" not in INSTALLED, reason="bitsandbytes is not installed")
def test_a_flow_transformer_answers_in_four_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(tiny_klein())
    with pytest.raises(InputError, match="no linear layer of 64"):
        quantise(base, "nf4")
    monkeypatch.setattr(module, "SMALLEST", 32)
    told = base.condition(["a dog"])
    assert quantise(base, "nf4").layers
    noisy, times = torch.randn(1, 16, 8, 8), torch.tensor([500.0])
    with torch.no_grad():
        assert torch.isfinite(base.predict(noisy, times, told)).all()
    told.embeds.requires_grad_()  # gradients pass after a pass without them
    base.predict(noisy, times, told).square().mean().backward()
    assert told.embeds.grad is not None
    assert told.embeds.grad.norm() > 0


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", missing)
    for scheme, name in LIBRARY.items():
        with pytest.raises(InputError, match=rf"spectral-fusion\[{name}\]"):
            check_scheme(scheme)
    with pytest.raises(InputError, match=r"\[torchao\]"):  # before the base is looked for
        trained(tmp_path, tmp_path / "nowhere", Library(tmp_path / "library"), quantize="int8")


def test_a_loaded_base_and_train_many_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import spectral_fusion.training.job as job

    monkeypatch.setattr(job, "check_scheme", lambda _: None)
    config = TrainConfig(name="rex", class_word="dog", quantize="int8")
    with pytest.raises(InputError, match="a loaded base"):
        train_concept(draw_photos(tmp_path / "p"), config, library=Library(tmp_path), base=tiny_base())
    with pytest.raises(InputError, match="train-many"):
        many._setup([SimpleNamespace(config=config)], SimpleNamespace(threads=1))  # type: ignore[list-item,arg-type]


def test_small_and_telling_layers_stay_as_they_are() -> None:
    linear = torch.nn.Linear(128, 64)
    assert is_chosen("blocks.0.attn.to_q", linear)
    assert not is_chosen("time_embedding.linear_1", linear)
    assert not is_chosen("down_blocks.0.resnets.0.time_emb_proj", linear)
    assert not is_chosen("proj_out", linear)
    assert is_chosen("single_transformer_blocks.3.proj_out", linear)
    assert not is_chosen("blocks.0.attn.to_q", torch.nn.Linear(100, 64))
    assert not is_chosen("conv", torch.nn.Conv2d(64, 64, 1))
    assert [stored_bytes(linear, scheme) for scheme in LIBRARY] == [8192 + 256, 8192 + 256, 4096 + 512]
