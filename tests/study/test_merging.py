"""Each way of fusing, against brute force on small matrices or against the library that it stands for."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from concepts import delta, make_concept, same_weights, weights_of
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.evaluate.lora import Lora
from spectral_fusion.spectral import Factors
from study.methods.applied import applying
from study.methods.least_squares import best_weights, exact_least_squares_delta, least_squares_delta
from study.methods.merging import (
    DENSITY,
    averaged,
    dare_merged,
    matrixwise,
    off_bands,
    off_others,
    product_fuse,
    summed,
    ties_merged,
)

OUT, IN, RANK = 7, 5, 2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lora_of(base: StableDiffusion, name: str, seed: int) -> Lora:
    """A LoRA on two layers of the tiny base."""
    layers = {}
    for path in (
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        "text_encoder.encoder.layers.0.self_attn.q_proj",
    ):
        weight = base.layers()[path].weight
        A, B = random(RANK, weight.shape[1], seed=seed).float(), random(weight.shape[0], RANK, seed=seed + 1).float()
        layers[path] = (A, B)
    return Lora(name, f"<{name}>", "dog", layers, {"text_encoder": random(1, 64, seed=seed).float()}, {})


@pytest.fixture
def loras(shared_base: StableDiffusion) -> list[Lora]:
    return [lora_of(shared_base, name, seed) for seed, name in ((1, "rex"), (5, "tom"), (9, "kit"))]


@pytest.mark.parametrize("combination", ["ties", "dare_linear"])
def test_merging_is_what_peft_makes_of_it(combination: str, loras: list[Lora], shared_base: StableDiffusion) -> None:
    name, (A, B) = next(iter(loras[0].layers.items()))
    model = get_peft_model(
        nn.Sequential(nn.Linear(A.shape[1], B.shape[0])),
        LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0"]),
        adapter_name="rex",
    )
    for lora in loras[1:]:
        model.add_adapter(lora.name, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0"]))
    layer = model.base_model.model[0]
    for lora in loras:
        layer.lora_A[lora.name].weight.data, layer.lora_B[lora.name].weight.data = lora.layers[name]
    torch.manual_seed(0)  # after PEFT has made room for the result, which takes random numbers too
    A, B = model.base_model._generalized_task_arithmetic_weighted_adapter(
        combination, [lora.name for lora in loras], [1.0] * 3, layer, DENSITY, "total"
    )
    merge = ties_merged if combination == "ties" else dare_merged
    alone = [Lora(x.name, x.trigger, x.class_word, {name: x.layers[name]}, x.embeddings, {}) for x in loras]
    assert torch.equal(delta(merge(shared_base, alone)[name]), B @ A)


def test_matrixwise_combines_first_and_multiplies_then() -> None:
    parts = [Factors(random(OUT, RANK, seed=i), random(RANK, IN, seed=i + 5)) for i in range(3)]
    whole = matrixwise(lambda tensors: torch.stack(tensors).sum(0), parts)
    assert torch.allclose(delta(whole), sum(p.up for p in parts) @ sum(p.down for p in parts))


def test_the_sum_of_loras_acts_as_diffusers_own(loras: list[Lora], base: StableDiffusion) -> None:
    layer = base.layers()[next(iter(loras[0].layers))]
    x = torch.randn(3, layer.in_features)
    for lora in loras:
        base.pipeline.load_lora_weights(lora.state(), adapter_name=lora.name)
    path = next(iter(loras[0].layers)).removeprefix("unet.")
    answers = {}
    for merge, weight in ((summed, 1.0), (averaged, 1 / 3)):
        base.pipeline.set_adapters([lora.name for lora in loras], [weight] * 3)
        answers[merge] = base.denoiser.get_submodule(path)(x)
    base.pipeline.unload_lora_weights()
    for merge, theirs in answers.items():
        with applying(merge)(base, loras):
            ours = layer(x)
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_the_sum_of_concepts_is_the_products_own(base: StableDiffusion) -> None:
    concepts = [make_concept(base, name, band=band, seed=band) for band, name in enumerate(("rex", "tom"))]
    with product_fuse("sum")(base, concepts):
        theirs = weights_of(base)
    with applying(summed)(base, concepts):
        ours = weights_of(base)
    assert all(torch.allclose(theirs[name], ours[name], atol=1e-6) for name in theirs)


def test_afterwards_the_base_is_as_before_even_where_drawing_fails(loras: list[Lora], base: StableDiffusion) -> None:
    before = weights_of(base)
    with pytest.raises(ZeroDivisionError), applying(summed)(base, loras):
        raise ZeroDivisionError
    assert same_weights(before, weights_of(base))
    assert base.triggers() == []


def test_concepts_that_are_kept_off_other_bands_do_not_reach_into_them() -> None:
    U, V = (torch.linalg.qr(random(size, size, seed=size)).Q for size in (OUT, IN))
    layers = []
    for i in range(2):
        mine = slice(i * RANK, (i + 1) * RANK)
        shifts = {"A": random(OUT, RANK, seed=i), "B": random(IN, RANK, seed=i + 5)}
        layers.append({"U": U[:, mine], "S": random(RANK, seed=i + 9).abs(), "V": V[:, mine], **shifts})
    for own, other in ((0, 1), (1, 0)):
        moved = delta(off_others(layers, own))
        assert moved.norm() > 0.1
        assert (layers[other]["U"].T @ moved).abs().max() < 1e-12
        assert (moved @ layers[other]["V"]).abs().max() < 1e-12


def test_keeping_off_other_bands_changes_nothing_for_a_concept_alone(base: StableDiffusion) -> None:
    concept = make_concept(base, "rex", size=0.5)
    alone, kept = summed(base, [concept]), off_bands(base, [concept])
    assert all(torch.allclose(delta(kept[name]), delta(alone[name]), atol=1e-5) for name in alone)


def problem(inputs: int) -> tuple[list[Tensor], list[Tensor]]:
    """Three deltas, and the inputs (in, n) of each."""
    return [random(OUT, IN, seed=i) for i in range(3)], [random(IN, inputs, seed=i + 10) for i in range(3)]


def squares(found: Tensor, deltas: list[Tensor], inputs: list[Tensor]) -> float:
    return float(sum(((found - own) @ X).square().sum() for own, X in zip(deltas, inputs, strict=True)))


def test_gradient_fusion_solves_the_least_squares() -> None:
    deltas, inputs = problem(inputs=6)
    found = least_squares_delta(deltas, [X @ X.T for X in inputs], 200)
    stacked = torch.cat(inputs, dim=1)
    answers = torch.cat([own @ X for own, X in zip(deltas, inputs, strict=True)], dim=1)
    brute = torch.linalg.lstsq(stacked.T, answers.T).solution.T
    assert torch.allclose(found, brute, atol=1e-6)


def test_gradient_fusion_leaves_alone_what_no_input_has() -> None:
    deltas, inputs = problem(inputs=1)
    found = least_squares_delta(deltas, [X @ X.T for X in inputs], 200)
    assert squares(found, deltas, inputs) < 1e-10
    basis = torch.linalg.svd(torch.cat(inputs, dim=1)).U
    assert (found @ basis[:, len(inputs) :]).abs().max() < 1e-6


@pytest.mark.parametrize("inputs", [1, 6])
def test_gradient_fusion_in_closed_form_is_where_its_iterations_end(inputs: int) -> None:
    deltas, seen = problem(inputs)
    grams = [X @ X.T for X in seen]
    assert torch.allclose(
        exact_least_squares_delta(deltas, grams, ridge=1e-10), least_squares_delta(deltas, grams, 200), atol=1e-5
    )


def test_the_weights_in_closed_form_are_the_best() -> None:
    deltas, inputs = problem(inputs=6)
    grams = [X @ X.T for X in inputs]
    best = best_weights(deltas, grams)

    def loss(weights: Tensor) -> float:
        return squares(torch.einsum("k,koi->oi", weights, torch.stack(deltas)), deltas, inputs)

    for step in torch.eye(3, dtype=torch.float64):
        for size in (-0.05, 0.05):
            assert loss(best + size * step) > loss(best)


def test_the_best_weights_are_those_of_the_mean_where_all_see_the_same() -> None:
    deltas, inputs = problem(inputs=6)
    weights = best_weights(deltas, [inputs[0] @ inputs[0].T] * 3)
    assert torch.allclose(weights, torch.full((3,), 1 / 3, dtype=torch.float64), atol=1e-4)
