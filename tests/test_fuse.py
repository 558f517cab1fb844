"""Fusion: a sum, exact, reversible bit for bit, refused where bands overlap."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig

from concepts import delta, make_concept, picture, same_weights, weights_of
from spectral_fusion.concept import Concept, LayerTensors
from spectral_fusion.concept.fingerprint import pipeline_layers
from spectral_fusion.concept.joint import measure_overlaps
from spectral_fusion.errors import InputError
from spectral_fusion.fuse import OVERLAP_TOLERANCE, fuse
from spectral_fusion.spectral import Triplets, additive_factors, all_triplets, band_overlap, singular_triplets
from tiny import tiny_pipeline

PROMPT = "a <rex> dog and a <tom> cat on grass"


@pytest.fixture
def trio(pipeline: StableDiffusionPipeline) -> tuple[Concept, Concept, Concept]:
    return (
        make_concept(pipeline),
        make_concept(pipeline, "tom", band=1, seed=1),
        make_concept(pipeline, "bot", band=2, mode="rotational", train_s=True, seed=2),
    )


def test_the_weights_gain_the_weighted_sum(pipeline: StableDiffusionPipeline, trio: tuple[Concept, ...]) -> None:
    before = {name: layer.weight.clone() for name, layer in pipeline_layers(pipeline).items()}
    fuse(pipeline, dict(zip(trio, (1.0, 0.5, -0.3), strict=True)))
    rex, tom, bot = trio
    for name, layer in pipeline_layers(pipeline).items():
        expected = before[name]
        if name in rex.layers:
            expected = expected + delta(rex.factors(name)) + 0.5 * delta(tom.factors(name))
            expected = expected - 0.3 * delta(bot.factors(name))
        torch.testing.assert_close(layer.weight.data, expected)


def test_fused_makes_the_picture_of_attached(pipeline: StableDiffusionPipeline, trio: tuple[Concept, ...]) -> None:
    weights = (1.0, 0.5, 0.8)
    for concept, weight in zip(trio, weights, strict=True):
        concept.attach(pipeline, weight)
    expected = picture(pipeline, PROMPT)
    for concept in trio:
        concept.detach(pipeline)
    fuse(pipeline, dict(zip(trio, weights, strict=True)))
    torch.testing.assert_close(picture(pipeline, PROMPT), expected, rtol=0, atol=1e-5)


def test_additive_concepts_in_disjoint_bands_are_one_adapter_over_the_union(
    shared_pipeline: StableDiffusionPipeline,
) -> None:
    """The paper's "frequency division": the sum of the deltas, against brute force over the union in float64."""
    concepts = [make_concept(shared_pipeline, name, band=i, seed=i) for i, name in enumerate(("rex", "tom", "bot"))]
    for name in concepts[0].layers:
        parts = [{k: v.double() for k, v in concept.layers[name].tensors().items()} for concept in concepts]
        U, S, V, A, B = (torch.cat([part[key] for part in parts], dim=-1) for key in ("U", "S", "V", "A", "B"))
        union = (U + A) * S @ (V + B).T - U * S @ V.T
        assert torch.linalg.matrix_rank(union) == min(2 * 12, *union.shape)
        total = sum(delta(additive_factors(**part)) for part in parts)
        torch.testing.assert_close(total, union, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_undo_restores_everything_bit_for_bit(dtype: torch.dtype) -> None:
    pipeline = tiny_pipeline(dtype=dtype)
    rex, tom = make_concept(pipeline), make_concept(pipeline, "tom", band=1)
    weights, tokens = weights_of(pipeline), pipeline.tokenizer.backend_tokenizer.to_str()
    fusion = fuse(pipeline, {rex: 1.0, tom: 0.7})
    assert not same_weights(weights_of(pipeline), weights)
    assert all(layer.weight.dtype == dtype for layer in pipeline_layers(pipeline).values())
    fusion.undo()
    assert same_weights(weights_of(pipeline), weights)
    assert pipeline.tokenizer.backend_tokenizer.to_str() == tokens
    with pytest.raises(InputError, match="undone already"):
        fusion.undo()
    fuse(pipeline, {rex: 1.0}).undo()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_removing_a_concept_gives_what_fusing_without_it_gives(dtype: torch.dtype) -> None:
    pipeline, other = tiny_pipeline(dtype=dtype), tiny_pipeline(dtype=dtype)
    rex, tom, bot = (make_concept(pipeline, name, band=i, seed=i) for i, name in enumerate(("rex", "tom", "bot")))
    rest = fuse(pipeline, {rex: 1.0, tom: 0.7, bot: 0.2}).without(tom)
    fuse(other, {rex: 1.0, bot: 0.2})
    assert same_weights(weights_of(pipeline), weights_of(other))
    assert pipeline.tokenizer.backend_tokenizer.to_str() == other.tokenizer.backend_tokenizer.to_str()
    assert list(rest.concepts) == [rex, bot]
    with pytest.raises(InputError, match="'tom' is not in this fusion"):
        rest.without(tom)


def test_the_mean_is_the_sum_over_n(pipeline: StableDiffusionPipeline, trio: tuple[Concept, ...]) -> None:
    other = tiny_pipeline()
    fuse(pipeline, dict.fromkeys(trio, 0.9), reduce="mean")
    fuse(other, dict.fromkeys(trio, 0.3))
    expected = weights_of(other)
    for name, weight in weights_of(pipeline).items():
        torch.testing.assert_close(weight, expected[name])


def test_a_saved_folder_loads_in_a_stock_pipeline(
    pipeline: StableDiffusionPipeline, trio: tuple[Concept, ...], tmp_path: Path
) -> None:
    fusion = fuse(pipeline, dict.fromkeys(trio, 1.0))
    folder = fusion.save(tmp_path / "fused")
    stock = StableDiffusionPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    assert torch.equal(picture(stock, PROMPT), picture(pipeline, PROMPT))
    assert stock.maybe_convert_prompt("a <rex>", stock.tokenizer) == "a <rex> <rex>_1"
    assert "rex 1, tom 1, bot 1" in (folder / "spectral_fusion.json").read_text()
    assert list(tmp_path.iterdir()) == [folder]
    with pytest.raises(InputError, match="exists already"):
        fusion.save(folder)
    fusion.without(trio[0]).save(folder, force=True)
    assert "rex" not in (folder / "spectral_fusion.json").read_text()


def test_a_failed_save_leaves_the_old_folder(
    pipeline: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fusion = fuse(pipeline, {make_concept(pipeline): 1.0})
    folder = fusion.save(tmp_path / "fused")
    before = sorted(path.name for path in folder.iterdir())

    def full(part: Path) -> None:
        (part / "half").write_text("")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        fusion.save(folder, force=True)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_overlapping_bands_are_refused_warned_of_or_allowed(
    pipeline: StableDiffusionPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    weights = weights_of(pipeline)
    rex, tom = make_concept(pipeline, rank=4, band=1), make_concept(pipeline, "tom", rank=8, seed=1)
    with pytest.raises(InputError, match=r"'rex' and 'tom' overlap by 1\.00 in '(unet|text_encoder)\."):
        fuse(pipeline, {rex: 1.0, tom: 1.0})
    assert same_weights(weights_of(pipeline), weights)
    fuse(pipeline, {rex: 1.0, tom: 1.0}, on_overlap="warn").undo()
    assert "overlap by 1.00" in caplog.text
    caplog.clear()
    fuse(pipeline, {rex: 1.0, tom: 1.0}, on_overlap="allow")
    assert not caplog.text


def test_an_overlap_in_one_layer_alone_is_found(shared_pipeline: StableDiffusionPipeline) -> None:
    rex, tom = make_concept(shared_pipeline), make_concept(shared_pipeline, "tom", band=1)
    name = sorted(tom.layers)[7]
    basis = tom.layers[name].basis
    mixed = Triplets(basis.U, basis.S, (basis.V + 0.1 * rex.layers[name].basis.V) / 1.01**0.5)
    layers = tom.layers | {name: LayerTensors(mixed, tom.layers[name].trained)}
    overlaps = measure_overlaps([rex, type(tom)(**{**vars(tom), "layers": layers})])
    assert [(overlap.first, overlap.second, overlap.layer) for overlap in overlaps] == [("rex", "tom", name)]
    assert overlaps[0].value == pytest.approx(0.1 / 1.01**0.5, rel=1e-3)


def test_measured_overlaps_are_the_largest_of_all_layers(shared_pipeline: StableDiffusionPipeline) -> None:
    pipeline = tiny_pipeline(seed=3)
    rex, tom = make_concept(shared_pipeline), make_concept(pipeline, "tom", band=1, targets=("to_q", "q_proj"))
    largest = max(band_overlap(rex.layers[name].basis, tom.layers[name].basis) for name in tom.layers)
    assert measure_overlaps([rex, tom])[0].value == pytest.approx(largest)
    apart = make_concept(shared_pipeline, "bot", targets=("to_k",))
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
from tiny import tiny_pipeline
name, band, method, path = sys.argv[1:]
pipeline = tiny_pipeline()
layer = pipeline.text_encoder.encoder.layers[0].mlp.fc1 = torch.nn.Linear(384, 512)
layer.weight.data = decaying_weight()
way = (lambda weight, lo, hi: all_triplets(weight).part(lo, hi)) if method == "full" else singular_triplets
make_concept(pipeline, name, band=int(band), decompose_layer=way, targets=("layers.0.mlp.fc1",)).save(path)
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
    pipeline: StableDiffusionPipeline, trio: tuple[Concept, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("decomposed while fusing")

    monkeypatch.setattr(torch.linalg, "svd", forbidden)
    fuse(pipeline, dict.fromkeys(trio, 1.0)).undo()


def test_what_cannot_be_fused_is_refused_and_nothing_changes(
    pipeline: StableDiffusionPipeline, trio: tuple[Concept, ...]
) -> None:
    rex, tom, _ = trio
    stranger = make_concept(tiny_pipeline(seed=1), "zoe", band=5)
    weights, tokens = weights_of(pipeline), len(pipeline.tokenizer)
    cases = [
        ({}, {}, "no concept given"),
        ({rex: float("nan")}, {}, "not a number"),
        ({rex: 1.0}, {"reduce": "max"}, "reduce 'max'"),
        ({rex: 1.0}, {"on_overlap": "ignore"}, "on_overlap 'ignore'"),
        ({rex: 1.0, make_concept(pipeline, band=4): 1.0}, {}, "two concepts have the name 'rex'"),
        ({rex: 1.0, stranger: 1.0}, {}, "concepts add up on one base only"),
        ({stranger: 1.0}, {}, f"trained on base {stranger.base} tiny, this is base {rex.base}"),
    ]
    for concepts, options, words in cases:
        with pytest.raises(InputError, match=words):
            fuse(pipeline, concepts, **options)
        assert same_weights(weights_of(pipeline), weights)
        assert len(pipeline.tokenizer) == tokens
    tom.attach(pipeline)
    with pytest.raises(InputError, match="'tom' is already on this pipeline"):
        fuse(pipeline, {rex: 1.0, tom: 1.0})


def test_a_fused_pipeline_takes_no_more_concepts_until_undone(
    pipeline: StableDiffusionPipeline, trio: tuple[Concept, ...]
) -> None:
    rex, tom, _ = trio
    fusion = fuse(pipeline, {rex: 1.0})
    with pytest.raises(InputError, match="rex are fused into this pipeline"):
        fuse(pipeline, {tom: 1.0})
    with pytest.raises(InputError, match="rex are fused into this pipeline"):
        tom.attach(pipeline)
    fusion.undo()
    tom.attach(pipeline)


def test_a_folder_with_adapters_attached_is_not_written(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    fusion = fuse(pipeline, {make_concept(pipeline): 1.0})
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), "style")
    with pytest.raises(InputError, match="style are attached"):
        fusion.save(tmp_path / "fused")
    assert not any(tmp_path.iterdir())
