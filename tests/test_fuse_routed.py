"""Routed fusion, and LoRAs in a fusion: undone, saved and exported as a sum is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from concepts import delta, make_concept, picture, same_weights, weights_of
from spectral_fusion.base.routing import route, watched_grams
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.cli import app
from spectral_fusion.concept import Library, export_lora
from spectral_fusion.concept.community import LoraFile, lora_overlaps, read_lora
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.spectral import sum_factors
from tiny import tiny_base

PROMPT = "a <rex> dog and a <tom> cat on grass"


def as_lora(concept, name: str = "lora") -> LoraFile:
    """A concept as a LoRA file would have it, with a word of its own."""
    layers = {layer: concept.factors(layer) for layer in concept.layers}
    return LoraFile(name, layers, trigger="<s1>", embeddings={"<s1>": concept.embeddings["text_encoder"][:1]})


def test_grams_are_means_over_all_that_passes() -> None:
    torch.manual_seed(0)
    layers = {"linear": torch.nn.Linear(6, 4), "conv": torch.nn.Conv2d(3, 4, 3, padding=1)}
    downs = {"linear": torch.randn(2, 6), "conv": torch.randn(2, 27)}
    x, y = torch.randn(5, 7, 6), torch.randn(2, 3, 8, 8)
    with watched_grams(layers, downs) as found, torch.no_grad():
        layers["linear"](x[:2])
        layers["linear"](x[2:])
        layers["conv"](y)
    z = x.flatten(0, 1) @ downs["linear"].T
    torch.testing.assert_close(found()["linear"].float(), z.T @ z / len(z))
    patches = torch.nn.functional.unfold(y, 3, padding=1).movedim(1, -1).flatten(0, 1) @ downs["conv"].T
    torch.testing.assert_close(found()["conv"].float(), patches.T @ patches / len(patches))
    assert not layers["linear"]._forward_hooks


def test_one_concept_alone_is_routed_to_itself(base: StableDiffusion) -> None:
    rex = make_concept(base)
    routed = route(base, {rex: 0.8})
    for layer, factors in routed.deltas.items():
        torch.testing.assert_close(delta(factors), 0.8 * delta(rex.factors(layer)), rtol=1e-3, atol=1e-5)


def test_routing_brings_each_concept_nearer_to_itself_on_its_own_prompts(base: StableDiffusion) -> None:
    """In the layers themselves: what the joint delta makes of a concept's inputs, against what the concept makes."""
    concepts = {make_concept(base, name, band=i, seed=i, size=0.3): 1.0 for i, name in enumerate(("rex", "tom"))}
    shares = {s: route(base, concepts, shrinkage=s, steps=2) for s in (0.0, 1e6)}
    for layer in next(iter(concepts)).layers:
        plain = sum_factors([concept.factors(layer) for concept in concepts])
        torch.testing.assert_close(delta(shares[1e6].deltas[layer]), delta(plain), rtol=1e-3, atol=1e-4)
    assert any(
        not torch.allclose(delta(shares[0.0].deltas[layer]), delta(shares[1e6].deltas[layer]), atol=1e-2)
        for layer in shares[0.0].deltas
    )
    assert shares[0.0].passes == 2 * 4 * 2


@pytest.mark.parametrize("reduce", ["routed", "sum", "mean"])
def test_a_fusion_with_a_lora_is_undone_bit_for_bit(base: StableDiffusion, reduce: str) -> None:
    before = weights_of(base)
    rex, tom = make_concept(base), make_concept(base, "tom", band=1, mode="rotational", seed=1)
    lora = as_lora(make_concept(base, "bot", band=2, seed=2, targets=("to_k", "conv1")))
    fusion = fuse(base, {rex: 1.0, tom: 0.5}, loras={lora: -0.7}, reduce=reduce)
    assert base.triggers() == ["<rex>", "<s1>", "<tom>"]
    assert fusion.notes["Concepts"] == "rex: 1, tom: 0.5, lora: -0.7"
    assert bool(fusion.cost) == (reduce == "routed")
    if reduce != "routed":
        scale = 1 / 3 if reduce == "mean" else 1.0
        for layer in lora.layers:
            parts = [(rex, 1.0), (tom, 0.5), (lora, -0.7)]
            expected = sum(w * delta(s.factors(layer)) for s, w in parts if layer in s.layers)
            torch.testing.assert_close(delta(fusion.factors(layer)), scale * expected, rtol=1e-4, atol=1e-5)
    fusion.undo()
    assert same_weights(weights_of(base), before)
    assert not base.triggers()


def test_a_routed_fusion_is_exported_and_saved_like_a_sum(base: StableDiffusion, tmp_path: Path) -> None:
    rex, tom = make_concept(base), make_concept(base, "tom", band=1, seed=1, targets=("to_k", "conv1", "q_proj"))
    fusion = fuse(base, {rex: 1.0, tom: 1.0}, reduce="routed")
    expected = picture(base, PROMPT)
    fusion.save(tmp_path / "folder")
    path = fusion.export(tmp_path / "lora.safetensors", "kohya")
    fusion.undo()
    loaded = tiny_base()
    loaded.add_words({concept.trigger: concept.embeddings for concept in (rex, tom)})
    loaded.pipeline.load_lora_weights(str(path))
    torch.testing.assert_close(picture(loaded, PROMPT), expected, rtol=0, atol=1e-4)
    stock = StableDiffusion(type(base.pipeline).from_pretrained(tmp_path / "folder"))
    stock.pipeline.set_progress_bar_config(disable=True)
    torch.testing.assert_close(picture(stock, PROMPT), expected, rtol=0, atol=1e-5)


def test_a_picture_says_that_it_was_routed(base: StableDiffusion) -> None:
    fusion = fuse(base, {make_concept(base): 1.0}, reduce="routed")
    config = GenerateConfig("a <rex> dog", num_inference_steps=1, height=32, width=32, notes=fusion.notes)
    made = generate(base, config)[0]
    assert made.parameters.settings["Fused by"] == "routed"
    assert np.asarray(made.image).std() > 0


def test_what_a_lora_has_in_common_with_a_concept(base: StableDiffusion) -> None:
    rex, tom = make_concept(base), make_concept(base, "tom", band=1, seed=1)
    same, other = lora_overlaps(as_lora(rex), [rex, tom])
    assert (same.first, same.second) == ("lora", "rex")
    assert same.value == pytest.approx(1.0, abs=1e-5)
    assert other.value < 0.5


def test_what_cannot_be_fused(base: StableDiffusion) -> None:
    rex = make_concept(base)
    before = weights_of(base)
    for loras, match in (
        ({as_lora(rex, "rex"): 1.0}, "called 'rex'"),
        ({as_lora(rex): float("nan")}, "weight nan"),
        ({replace(as_lora(rex), embeddings={"<rex>": rex.embeddings["text_encoder"]}): 1.0}, "<rex>"),
    ):
        with pytest.raises(InputError, match=match):
            fuse(base, {rex: 1.0}, loras=loras)
    with pytest.raises(InputError, match="shrinkage is -1"):
        fuse(base, {rex: 1.0}, reduce="routed", shrinkage=-1)
    assert same_weights(weights_of(base), before)
    assert not base.triggers()


def test_the_command_line_routes_and_takes_loras(base: StableDiffusion, tmp_path: Path, monkeypatch) -> None:
    base.pipeline.save_pretrained(tmp_path / "base")
    library = Library(tmp_path / "concepts")
    library.add(make_concept(base))
    library.add(make_concept(base, "tom", band=1, seed=1))
    export_lora({make_concept(base, "bot", band=2, seed=2): 1.0}, tmp_path / "style.safetensors", "diffusers")
    monkeypatch.chdir(tmp_path)
    common = ["fuse", "rex", "tom", "--base", "base", "--loras", "style.safetensors", "--lora-weights", "0.5"]
    checked = CliRunner().invoke(app, common)
    assert checked.exit_code == 0, checked.output
    assert "cosine with rex" in checked.output
    routed = CliRunner().invoke(app, [*common, "--reduce", "routed", "--out", "all.safetensors"])
    assert routed.exit_code == 0, routed.output
    assert "pictures through the denoiser" in routed.output
    shapes = {name: tuple(layer.weight.shape) for name, layer in base.layers().items()}
    assert read_lora(tmp_path / "all.safetensors", shapes).rank == 3 * 8
    again = CliRunner().invoke(app, [*common, "--reduce", "routed", "--out", "all.safetensors"])
    assert again.exit_code == 2
    assert "exists already" in again.output
