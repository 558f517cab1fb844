"""Fusion: a sum, exact, reversible bit for bit, refused where bands overlap."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig

from concepts import delta, make_concept, picture, same_weights, weights_of
from spectral_fusion.base.attach import attach, detach
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, LayerTensors, export_lora
from spectral_fusion.concept.joint import measure_overlaps
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import OVERLAP_TOLERANCE, check_together, fuse
from spectral_fusion.spectral import Triplets, additive_factors, all_triplets, band_overlap, singular_triplets
from tiny import tiny_base

PROMPT = "a <rex> dog and a <tom> cat on grass"


@pytest.fixture
def trio(base: StableDiffusion) -> tuple[Concept, Concept, Concept]:
    return (
        make_concept(base),
        make_concept(base, "tom", band=1, seed=1),
        make_concept(base, "bot", band=2, mode="rotational", train_s=True, seed=2),
    )


def test_the_weights_gain_the_weighted_sum(base: StableDiffusion, trio: tuple[Concept, ...]) -> None:
    before = {name: layer.weight.clone() for name, layer in base.layers().items()}
    fuse(base, dict(zip(trio, (1.0, 0.5, -0.3), strict=True)))
    rex, tom, bot = trio
    for name, layer in base.layers().items():
        expected = before[name]
        if name in rex.layers:
            expected = expected + delta(rex.factors(name)) + 0.5 * delta(tom.factors(name))
            expected = expected - 0.3 * delta(bot.factors(name))
        torch.testing.assert_close(layer.weight.data, expected)


def test_a_common_layer_of_another_shape_is_named(base: StableDiffusion, trio: tuple[Concept, ...]) -> None:
    rex, tom, _ = trio
    layer = next(iter(tom.layers))
    basis = tom.layers[layer].basis
    wider = basis._replace(V=torch.cat([basis.V, basis.V]))
    trained = {"B": torch.cat([tom.layers[layer].trained["B"]] * 2), "A": tom.layers[layer].trained["A"]}
    odd = replace(tom, layers={**tom.layers, layer: LayerTensors(wider, trained)})
    whole = {rex: 1.0, odd: 1.0}
    for combine in (lambda: check_together([rex, odd]), lambda: export_lora(whole, Path("never"), "kohya")):
        with pytest.raises(InputError, match=rf"'rex' and 'tom'.*{re.escape(layer)}") as caught:
            combine()
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("first", "second"), [("<caf\u00e9>", "<CAF\u00c9>"), ("<rex>", "<Rex>")])
def test_two_of_one_trigger_are_refused_in_any_case(trio: tuple[Concept, ...], first: str, second: str) -> None:
    rex, tom, _ = trio
    with pytest.raises(InputError, match="two concepts have the trigger"):
        check_together([replace(rex, trigger=first), replace(tom, trigger=second)])


def test_fused_makes_the_picture_of_attached(base: StableDiffusion, trio: tuple[Concept, ...]) -> None:
    weights = (1.0, 0.5, 0.8)
    for concept, weight in zip(trio, weights, strict=True):
        attach(base, concept, weight)
    expected = picture(base, PROMPT)
    for concept in trio:
        detach(base, concept)
    fuse(base, dict(zip(trio, weights, strict=True)))
    torch.testing.assert_close(picture(base, PROMPT), expected, rtol=0, atol=1e-5)


def test_additive_concepts_in_disjoint_bands_are_one_adapter_over_the_union(
    shared_base: StableDiffusion,
) -> None:
    """The paper's "frequency division": the sum of the deltas, against brute force over the union in float64."""
    concepts = [make_concept(shared_base, name, band=i, seed=i) for i, name in enumerate(("rex", "tom", "bot"))]
    for name in concepts[0].layers:
        parts = [{k: v.double() for k, v in concept.layers[name].tensors().items()} for concept in concepts]
        U, S, V, A, B = (torch.cat([part[key] for part in parts], dim=-1) for key in ("U", "S", "V", "A", "B"))
        union = (U + A) * S @ (V + B).T - U * S @ V.T
        assert torch.linalg.matrix_rank(union) == min(2 * 12, *union.shape)
        total = sum(delta(additive_factors(**part)) for part in parts)
        torch.testing.assert_close(total, union, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_undo_restores_everything_bit_for_bit(dtype: torch.dtype) -> None:
    base = tiny_base(dtype=dtype)
    rex, tom = make_concept(base), make_concept(base, "tom", band=1)
    weights, tokens = weights_of(base), base.tokenizer.backend_tokenizer.to_str()
    fusion = fuse(base, {rex: 1.0, tom: 0.7})
    assert not same_weights(weights_of(base), weights)
    assert all(layer.weight.dtype == dtype for layer in base.layers().values())
    fusion.undo()
    assert same_weights(weights_of(base), weights)
    assert base.tokenizer.backend_tokenizer.to_str() == tokens
    with pytest.raises(InputError, match="undone already"):
        fusion.undo()
    fuse(base, {rex: 1.0}).undo()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_removing_a_concept_gives_what_fusing_without_it_gives(dtype: torch.dtype) -> None:
    base, other = tiny_base(dtype=dtype), tiny_base(dtype=dtype)
    rex, tom, bot = (make_concept(base, name, band=i, seed=i) for i, name in enumerate(("rex", "tom", "bot")))
    rest = fuse(base, {rex: 1.0, tom: 0.7, bot: 0.2}).without(tom)
    fuse(other, {rex: 1.0, bot: 0.2})
    assert same_weights(weights_of(base), weights_of(other))
    assert base.tokenizer.backend_tokenizer.to_str() == other.tokenizer.backend_tokenizer.to_str()
    assert list(rest.concepts) == [rex, bot]
    with pytest.raises(InputError, match="'tom' is not in this fusion"):
        rest.without(tom)


def test_the_mean_is_the_sum_over_n(base: StableDiffusion, trio: tuple[Concept, ...]) -> None:
    other = tiny_base()
    fuse(base, dict.fromkeys(trio, 0.9), reduce="mean")
    fuse(other, dict.fromkeys(trio, 0.3))
    expected = weights_of(other)
    for name, weight in weights_of(base).items():
        torch.testing.assert_close(weight, expected[name])


def test_a_saved_folder_loads_in_a_stock_pipeline(
    base: StableDiffusion, trio: tuple[Concept, ...], tmp_path: Path
) -> None:
    fusion = fuse(base, dict.fromkeys(trio, 1.0))
    folder = fusion.save(tmp_path / "fused")
    stock = StableDiffusion(StableDiffusionPipeline.from_pretrained(folder))
    stock.pipeline.set_progress_bar_config(disable=True)
    assert torch.equal(picture(stock, PROMPT), picture(base, PROMPT))
    assert stock.texts["text_encoder"].expand("a <rex>") == "a <rex> <rex>_1"
    assert "rex 1, tom 1, bot 1" in (folder / "spectral_fusion.json").read_text()
    assert list(tmp_path.iterdir()) == [folder]
    with pytest.raises(InputError, match="exists already"):
        fusion.save(folder)
    fusion.without(trio[0]).save(folder, force=True)
    assert "rex" not in (folder / "spectral_fusion.json").read_text()


def test_a_failed_save_leaves_the_old_folder(
    base: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fusion = fuse(base, {make_concept(base): 1.0})
    folder = fusion.save(tmp_path / "fused")
    before = sorted(path.name for path in folder.iterdir())

    def full(part: str) -> None:
        (Path(part) / "half").write_text("")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(base.pipeline, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        fusion.save(folder, force=True)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_overlapping_bands_are_refused_warned_of_or_allowed(
    base: StableDiffusion, caplog: pytest.LogCaptureFixture
) -> None:
    weights = weights_of(base)
    rex, tom = make_concept(base, rank=4, band=1), make_concept(base, "tom", rank=8, seed=1)
    with pytest.raises(InputError, match=r"'rex' and 'tom' overlap by 1\.00 in '(unet|text_encoder)\."):
        fuse(base, {rex: 1.0, tom: 1.0})
    assert same_weights(weights_of(base), weights)
    fuse(base, {rex: 1.0, tom: 1.0}, on_overlap="warn").undo()
    assert "overlap by 1.00" in caplog.text
    caplog.clear()
    fuse(base, {rex: 1.0, tom: 1.0}, on_overlap="allow")
    assert not caplog.text


def test_an_overlap_in_one_layer_alone_is_found(shared_base: StableDiffusion) -> None:
    rex, tom = make_concept(shared_base), make_concept(shared_base, "tom", band=1)
    name = sorted(tom.layers)[7]
    basis = tom.layers[name].basis
    mixed = Triplets(basis.U, basis.S, (basis.V + 0.1 * rex.layers[name].basis.V) / 1.01**0.5)
    layers = tom.layers | {name: LayerTensors(mixed, tom.layers[name].trained)}
    overlaps = measure_overlaps([rex, type(tom)(**{**vars(tom), "layers": layers})])
    assert [(overlap.first, overlap.second, overlap.layer) for overlap in overlaps] == [("rex", "tom", name)]
    assert overlaps[0].value == pytest.approx(0.1 / 1.01**0.5, rel=1e-3)


def test_measured_overlaps_are_the_largest_of_all_layers(shared_base: StableDiffusion) -> None:
    base = tiny_base(seed=3)
    rex, tom = make_concept(shared_base), make_concept(base, "tom", band=1, targets=("to_q", "q_proj"))
    largest = max(band_overlap(rex.layers[name].basis, tom.layers[name].basis) for name in tom.layers)
    assert measure_overlaps([rex, tom])[0].value == pytest.approx(largest)
    apart = make_concept(shared_base, "bot", targets=("to_k",))
    assert measure_overlaps([tom, apart]) == []


def decaying_weight() -> torch.Tensor:
    """(512, 384), with singular values that fall off as in trained weights."""
    generator = torch.Generator().manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(n, 384, generator=generator)).Q for n in (512, 384))
    return U * (10 * 0.9 ** torch.arange(384)) @ V.T


SEPARATE = """
import sys, torch
from concepts import make_concept
from spectral_fusion.spectral import all_triplets, singular_triplets
from test_fuse import decaying_weight
from tiny import tiny_base
name, band, method, path = sys.argv[1:]
base = tiny_base()
layer = base.text_encoder.encoder.layers[0].mlp.fc1 = torch.nn.Linear(384, 512)
layer.weight.data = decaying_weight()
way = (lambda weight, lo, hi: all_triplets(weight).part(lo, hi)) if method == "full" else singular_triplets
make_concept(base, name, band=int(band), decompose_layer=way, targets=("layers.0.mlp.fc1",)).save(path)
"""


def test_separate_processes_and_decompositions_measure_as_disjoint(tmp_path: Path) -> None:
    jobs = []
    for name, band, method in (("rex", "0", "full"), ("tom", "1", "iterated")):
        command = [sys.executable, "-c", SEPARATE, name, band, method, str(tmp_path / name)]
        jobs.append(subprocess.Popen(command, cwd=Path(__file__).parent))
    assert [job.wait() for job in jobs] == [0, 0]
    rex, tom = (Concept.load(tmp_path / name) for name in ("rex", "tom"))
    (layer,) = rex.layers
    assert band_overlap(rex.layers[layer].basis, tom.layers[layer].basis) < 1e-3
    assert measure_overlaps([rex, tom])[0].value < 1e-3 < OVERLAP_TOLERANCE
    weight = decaying_weight()
    U = all_triplets(weight).part(4, 8).U
    assert not torch.equal(singular_triplets(weight, 4, 8).U, U)  # the ways did differ
    torch.testing.assert_close(tom.layers[layer].basis.U, U, rtol=0, atol=1e-3)


def test_fusing_needs_no_decomposition(
    base: StableDiffusion, trio: tuple[Concept, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("decomposed while fusing")

    monkeypatch.setattr(torch.linalg, "svd", forbidden)
    fuse(base, dict.fromkeys(trio, 1.0)).undo()


def test_what_cannot_be_fused_is_refused_and_nothing_changes(base: StableDiffusion, trio: tuple[Concept, ...]) -> None:
    rex, tom, _ = trio
    stranger = make_concept(tiny_base(seed=1), "zoe", band=5)
    weights, tokens = weights_of(base), len(base.tokenizer)
    cases = [
        ({}, {}, "no concept given"),
        ({rex: float("nan")}, {}, "not a number"),
        ({rex: 1.0}, {"reduce": "max"}, "reduce 'max'"),
        ({rex: 1.0}, {"on_overlap": "ignore"}, "on_overlap 'ignore'"),
        ({rex: 1.0, make_concept(base, band=4): 1.0}, {}, "two concepts have the name 'rex'"),
        ({rex: 1.0, stranger: 1.0}, {}, "concepts add up on one base only"),
        ({stranger: 1.0}, {}, f"trained on base {stranger.base} tiny, this is base {rex.base}"),
    ]
    for concepts, options, words in cases:
        with pytest.raises(InputError, match=words):
            fuse(base, concepts, **options)
        assert same_weights(weights_of(base), weights)
        assert len(base.tokenizer) == tokens
    attach(base, tom)
    with pytest.raises(InputError, match="'tom' is already on this base"):
        fuse(base, {rex: 1.0, tom: 1.0})


def test_a_fused_pipeline_takes_no_more_concepts_until_undone(base: StableDiffusion, trio: tuple[Concept, ...]) -> None:
    rex, tom, _ = trio
    fusion = fuse(base, {rex: 1.0})
    with pytest.raises(InputError, match="rex are fused into this base"):
        fuse(base, {tom: 1.0})
    with pytest.raises(InputError, match="rex are fused into this base"):
        attach(base, tom)
    fusion.undo()
    attach(base, tom)


def test_a_folder_with_adapters_attached_is_not_written(base: StableDiffusion, tmp_path: Path) -> None:
    fusion = fuse(base, {make_concept(base): 1.0})
    base.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), "style")
    with pytest.raises(InputError, match="style are attached"):
        fusion.save(tmp_path / "fused")
    assert not any(tmp_path.iterdir())


def test_a_model_that_is_not_finite_is_not_written(base: StableDiffusion, tmp_path: Path) -> None:
    fusion = fuse(base, {make_concept(base): 1e41})
    with pytest.raises(InputError, match="not finite; lower the weights"):
        fusion.save(tmp_path / "model")
    fusion.undo()
    assert not list(tmp_path.iterdir())
