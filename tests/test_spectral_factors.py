"""The two deltas against their definitions in the paper, by brute force in float64."""

import pytest
import torch

from spectral_fusion.spectral import (
    Factors,
    additive_factors,
    all_triplets,
    delta_overlap,
    rotational_factors,
)

OUT, IN, R = 24, 17, 3


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def weight():
    return random(OUT, IN)


def basis(weight, index, rank=R):
    return all_triplets(weight).part(index * rank, (index + 1) * rank)


def delta(factors):
    return factors.up @ factors.down


def cayley(X):
    K = (X - X.T) / 2
    return (torch.eye(len(X), dtype=X.dtype) - K) @ torch.linalg.inv(torch.eye(len(X), dtype=X.dtype) + K)


def additive(weight, index, seed):
    U, S, V = basis(weight, index)
    return additive_factors(U, S, V, random(OUT, R, seed=seed), random(IN, R, seed=seed + 1))


def rotational(weight, index, seed):
    U, S, V = basis(weight, index)
    return rotational_factors(U, S, V, random(R, R, seed=seed), random(R, R, seed=seed + 1))


@pytest.mark.parametrize("train_s", [False, True])
def test_the_additive_delta_is_its_definition(weight, train_s):
    U, S, V = basis(weight, 1)
    A, B, c = random(OUT, R, seed=1), random(IN, R, seed=2), random(R, seed=3) * train_s
    expected = (U + A) @ torch.diag(S + c) @ (V + B).T - U @ torch.diag(S) @ V.T
    found = delta(additive_factors(U, S, V, A, B, c if train_s else None))
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("train_s", [False, True])
def test_the_rotational_delta_is_its_definition(weight, train_s):
    U, S, V = basis(weight, 1)
    X_U, X_V = random(R, R, seed=1), random(R, R, seed=2)
    c = random(R, seed=3) if train_s else torch.ones(R, dtype=torch.float64)
    expected = U @ (cayley(X_U) @ torch.diag(S * c) @ cayley(X_V).T - torch.diag(S)) @ V.T
    found = delta(rotational_factors(U, S, V, X_U, X_V, c if train_s else None))
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


def test_the_cayley_map_is_a_rotation():
    R_U = cayley(random(5, 5))
    assert torch.allclose(R_U @ R_U.T, torch.eye(5, dtype=torch.float64), atol=1e-12)


def test_the_additive_delta_has_rank_2r_and_the_rotational_rank_r(weight):
    assert torch.linalg.matrix_rank(delta(additive(weight, 0, seed=1))) == 2 * R
    assert torch.linalg.matrix_rank(delta(rotational(weight, 0, seed=1))) == R


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_deltas_are_exactly_zero_at_the_start(weight, dtype):
    U, S, V = (part.to(dtype) for part in basis(weight, 0))
    shifts = torch.zeros(OUT, R, dtype=dtype), torch.zeros(IN, R, dtype=dtype), torch.zeros(R, dtype=dtype)
    turns = torch.zeros(R, R, dtype=dtype), torch.zeros(R, R, dtype=dtype), torch.ones(R, dtype=dtype)
    for factors in (
        additive_factors(U, S, V, *shifts),
        additive_factors(U, S, V, *shifts[:2]),
        rotational_factors(U, S, V, *turns),
        rotational_factors(U, S, V, *turns[:2]),
    ):
        assert torch.count_nonzero(delta(factors)) == 0


def test_every_trained_tensor_gets_a_gradient_at_the_start(weight):
    U, S, V = basis(weight, 0)
    target = random(OUT, IN, seed=9)
    starts = {
        additive_factors: (torch.zeros(OUT, R), torch.zeros(IN, R), torch.zeros(R)),
        rotational_factors: (torch.zeros(R, R), torch.zeros(R, R), torch.ones(R)),
    }
    for combine, tensors in starts.items():
        trained = [tensor.double().requires_grad_() for tensor in tensors]
        (delta(combine(U, S, V, *trained)) * target).sum().backward()
        assert all(tensor.grad is not None and tensor.grad.any() for tensor in trained)


def test_additive_concepts_in_disjoint_bands_add_up_to_one_over_the_union(weight):
    """The paper's argument for fusing by a sum: three bands of rank r are one adapter of rank 3r."""
    bands = [basis(weight, index) for index in range(3)]
    shifts = [(random(OUT, R, seed=i), random(IN, R, seed=10 + i), random(R, seed=20 + i)) for i in range(3)]
    separate = sum(delta(additive_factors(*(band + shift))) for band, shift in zip(bands, shifts, strict=True))
    joint_band = [torch.cat(parts, dim=-1) for parts in zip(*bands, strict=True)]
    joint_shift = [torch.cat(parts, dim=-1) for parts in zip(*shifts, strict=True)]
    union = delta(additive_factors(*joint_band, *joint_shift))
    assert (union - separate).abs().max() < 1e-10


def test_rotational_concepts_in_disjoint_bands_are_orthogonal_both_ways(weight):
    first, second = delta(rotational(weight, 0, seed=1)), delta(rotational(weight, 1, seed=5))
    assert (first.T @ second).abs().max() < 1e-10
    assert (first @ second.T).abs().max() < 1e-10
    assert delta_overlap(rotational(weight, 0, seed=1), rotational(weight, 1, seed=5)) < 1e-10


def test_additive_concepts_in_disjoint_bands_are_not_orthogonal(weight):
    assert delta_overlap(additive(weight, 0, seed=1), additive(weight, 1, seed=5)) > 1e-3


def test_flipped_signs_of_the_basis_and_the_shifts_give_the_same_delta(weight):
    U, S, V = basis(weight, 0)
    A, B = random(OUT, R, seed=1), random(IN, R, seed=2)
    sign = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    flipped = additive_factors(U * sign, S, V * sign, A * sign, B * sign)
    assert (delta(flipped) - delta(additive_factors(U, S, V, A, B))).abs().max() < 1e-12


def test_the_overlap_of_two_deltas_is_their_cosine(weight):
    first, second = additive(weight, 0, seed=1), additive(weight, 1, seed=5)
    expected = torch.nn.functional.cosine_similarity(delta(first).flatten(), delta(second).flatten(), dim=0).abs()
    assert delta_overlap(first, second) == pytest.approx(float(expected), abs=1e-12)
    assert delta_overlap(first, Factors(-first.up, first.down)) == pytest.approx(1.0)
    assert delta_overlap(first, Factors(torch.zeros_like(first.up), first.down)) == 0.0
