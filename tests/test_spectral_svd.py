"""Singular triplets from both ends: exact, canonical, and the same from either method."""

import pytest
import torch

from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Triplets, all_triplets, as_matrix, band_overlap, singular_triplets
from spectral_fusion.spectral.svd import end_triplets


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def residual(weight, triplets):
    U, S, V = triplets
    W = as_matrix(weight).float()
    worst = max(
        torch.linalg.vector_norm(W @ V - U * S, dim=0).max(), torch.linalg.vector_norm(W.T @ U - V * S, dim=0).max()
    )
    return float(worst / torch.linalg.matrix_norm(W, ord=2).clamp_min(1e-30))


SHAPES = [(400, 400), (500, 390), (390, 500), (400, 44, 3, 3)]


def by_iteration(weight, lo, hi):
    found = end_triplets(weight, lo, hi)
    assert found is not None
    return found


def in_full(weight, lo, hi):
    return all_triplets(weight).part(lo, hi)


def spans(lo, hi, directions):
    """The same slice from either end."""
    return {"top": (lo, hi), "bottom": (directions - hi, directions - lo)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", ["top", "bottom"])
@pytest.mark.parametrize("way", [in_full, by_iteration])
def test_triplets_are_those_of_the_weight(shape, side, way):
    weight = random(*shape)
    lo, hi = spans(8, 16, min(as_matrix(weight).shape))[side]
    triplets = way(weight, lo, hi)
    expected = torch.linalg.svdvals(as_matrix(weight).double())[lo:hi].float()
    assert torch.allclose(triplets.S, expected, rtol=1e-5)
    assert residual(weight, triplets) < 1e-5
    for vectors in (triplets.U, triplets.V):
        assert torch.allclose(vectors.T @ vectors, torch.eye(8), atol=1e-5)
        assert vectors.is_contiguous()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", ["bottom", "deep"])
def test_small_singular_values_are_as_exact_as_in_float64(shape, place):
    """A full decomposition in float32 turns these vectors by up to a hundredth: they lie close together."""
    weight = as_matrix(random(*shape))
    directions = min(weight.shape)
    lo = directions - 8 if place == "bottom" else directions // 2
    U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    found = singular_triplets(weight, lo, lo + 8)
    assert torch.allclose(found.S.double(), S[lo : lo + 8], rtol=1e-5)
    for vectors, exact in ((found.U, U[:, lo : lo + 8]), (found.V, Vh[lo : lo + 8].T)):
        outside = vectors.double() - exact @ (exact.T @ vectors.double())
        assert torch.linalg.matrix_norm(outside, ord=2) < 1e-6


@pytest.mark.parametrize("side", ["top", "bottom"])
def test_both_ways_agree_to_the_sign(side):
    weight = random(400, 400)
    lo, hi = spans(0, 8, 400)[side]
    full, iterated = in_full(weight, lo, hi), by_iteration(weight, lo, hi)
    assert torch.allclose(full.U, iterated.U, atol=1e-3)
    assert torch.allclose(full.V, iterated.V, atol=1e-3)


@pytest.mark.parametrize("side", ["top", "bottom"])
def test_bands_from_two_decompositions_are_disjoint(side):
    """A flat spectrum, as a random weight has it, is the hardest case: neighbours differ by a thousandth."""
    weight = random(600, 600)
    (lo, hi), (next_lo, next_hi) = spans(0, 8, 600)[side], spans(8, 16, 600)[side]
    first = by_iteration(weight, lo, hi)
    assert band_overlap(first, in_full(weight, next_lo, next_hi)) < 1e-3
    assert band_overlap(first, by_iteration(weight, next_lo, next_hi)) < 1e-3
    assert band_overlap(first, in_full(weight, lo, hi)) == pytest.approx(1.0)


def test_the_overlap_of_bands_ignores_signs_and_turns_inside_a_band():
    weight = random(40, 30)
    first, second = singular_triplets(weight, 0, 4), singular_triplets(weight, 2, 6)
    assert band_overlap(first, second) == pytest.approx(1.0, abs=1e-5)
    turn = torch.linalg.qr(random(4, 4)).Q
    third = singular_triplets(weight, 4, 8)
    assert band_overlap(Triplets(-first.U @ turn, first.S, first.V @ turn), third) < 1e-5


def test_the_largest_entry_of_each_left_vector_is_positive():
    U = singular_triplets(random(30, 20), 0, 10).U
    assert (U.gather(0, U.abs().argmax(0, keepdim=True)) > 0).all()


def test_a_weight_and_its_negative_share_the_left_vectors():
    weight = random(30, 20)
    first, second = singular_triplets(weight, 0, 5), singular_triplets(-weight, 0, 5)
    assert torch.allclose(first.U, second.U, atol=1e-5)
    assert torch.allclose(first.V, -second.V, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_triplets_are_float32_whatever_the_weight_is(dtype):
    weight = random(400, 400).to(dtype)
    triplets = singular_triplets(weight, 0, 4)
    assert {part.dtype for part in triplets} == {torch.float32}
    assert residual(weight, triplets) < 1e-5


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(400, 400),
        torch.eye(400),
        torch.diag(torch.cat([torch.full((12,), 5.0), torch.ones(388)])),
        torch.ones(400, 400),
        random(400, 3) @ random(3, 400),
    ],
    ids=["zero", "identity", "equal values", "rank one", "rank three"],
)
def test_weights_that_defeat_the_iteration_are_decomposed_in_full(weight):
    for lo in (0, 100, 392):
        triplets = singular_triplets(weight, lo, lo + 8)
        assert residual(weight, triplets) < 1e-5
        assert torch.allclose(triplets.S, torch.linalg.svdvals(weight.double())[lo : lo + 8].float(), atol=1e-3)
        for vectors in (triplets.U, triplets.V):
            assert torch.allclose(vectors.T @ vectors, torch.eye(8), atol=1e-4)


def test_a_weight_with_a_steep_spectrum_is_exact_too():
    left, right = torch.linalg.qr(random(500, 500)).Q, torch.linalg.qr(random(500, 500, seed=1)).Q
    weight = left * torch.logspace(2, -4, 500) @ right.T
    assert residual(weight, by_iteration(weight, 0, 8)) < 1e-5


def test_a_second_iteration_gives_the_same_triplets():
    weight = random(400, 400)
    first, second = (by_iteration(weight, 0, 8) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_float64_weight_is_decomposed_in_float64():
    weight = random(12, 9).double()
    U, S, V = singular_triplets(weight, 0, 9)
    assert (U * S @ V.T - weight).abs().max() < 1e-13


@pytest.mark.parametrize(("lo", "hi"), [(0, 0), (4, 4), (-1, 3), (5, 12)])
def test_directions_that_the_weight_does_not_have_are_refused(lo, hi):
    with pytest.raises(InputError, match="directions"):
        singular_triplets(random(20, 10), lo, hi)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_refused(value):
    weight = random(20, 10)
    weight[3, 4] = value
    with pytest.raises(InputError, match="NaN"):
        singular_triplets(weight, 0, 2)
