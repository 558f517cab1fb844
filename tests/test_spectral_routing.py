"""Routing: the closed form against its definition."""

import pytest
import torch
from torch import Tensor

from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Factors, route_factors, routing_matrix, sum_factors

OUT, IN = 12, 20


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def deltas(ranks: list[int], seed: int = 0) -> list[Factors]:
    return [
        Factors(random(OUT, r, seed=seed + 10 * i), random(r, IN, seed=seed + 10 * i + 1)) for i, r in enumerate(ranks)
    ]


def grams(parts: list[Factors], inputs: list[Tensor]) -> list[Tensor]:
    """`inputs`: (samples, in) of each delta."""
    down = sum_factors(parts).down
    return [(x @ down.T).T @ (x @ down.T) / len(x) for x in inputs]


def acts(factors: Factors, x: Tensor) -> Tensor:
    return x @ factors.down.T @ factors.up.T


def test_one_delta_alone_is_itself() -> None:
    for shrinkage in (0.0, 0.1, 100.0):
        part = deltas([5])
        C = routing_matrix(grams(part, [random(50, IN, seed=9)]), [5], shrinkage)
        torch.testing.assert_close(C, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-7)


def test_where_inputs_are_told_apart_each_delta_acts_as_it_does_alone() -> None:
    """Inputs of different concepts that span different spaces: the joint delta is each concept's own on its inputs."""
    parts = deltas([3, 2, 3])
    basis = torch.linalg.qr(random(IN, IN, seed=5)).Q
    spaces = [basis[:, :3], basis[:, 3:5], basis[:, 5:8]]  # 8 dimensions in all, and R = 8: C can serve them all
    inputs = [random(40, space.shape[1], seed=i) @ space.T for i, space in enumerate(spaces)]
    routed = route_factors(parts, grams(parts, inputs), shrinkage=0.0)
    for part, x in zip(parts, inputs, strict=True):
        torch.testing.assert_close(acts(routed, x), acts(part, x), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(acts(sum_factors(parts), x), acts(part, x), atol=0.1), "the plain sum does not"


def test_the_closed_form_is_the_least_squares_solution() -> None:
    ranks = [3, 4, 2]
    parts = deltas(ranks)
    inputs = [random(60, IN, seed=20 + i) + 2 * random(1, IN, seed=30 + i) for i in range(3)]
    down = sum_factors(parts).down
    block = torch.arange(3).repeat_interleave(torch.tensor(ranks))
    z = torch.cat([x @ down.T for x in inputs])
    wanted = torch.cat([(x @ down.T) * (block == i) for i, x in enumerate(inputs)])
    brute = torch.linalg.lstsq(z, wanted).solution.T
    C = routing_matrix(grams(parts, inputs), ranks, shrinkage=0.0)
    torch.testing.assert_close(C, brute, rtol=1e-5, atol=1e-6)


def test_shrinkage_leads_to_the_plain_sum() -> None:
    parts = deltas([3, 3])
    found = grams(parts, [random(40, IN, seed=1), random(40, IN, seed=2)])
    identity = torch.eye(6, dtype=torch.float64)
    distances = [float(torch.dist(routing_matrix(found, [3, 3], s), identity)) for s in (0.0, 0.1, 1.0, 10.0, 1e6)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 1
    assert distances[-1] < 1e-5


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_how_a_delta_is_factored_does_not_matter(shrinkage: float) -> None:
    parts = deltas([3, 4])
    mixed = [
        Factors(p.up @ torch.linalg.inv(m), m @ p.down)
        for p, m in zip(parts, (random(3, 3), random(4, 4)), strict=True)
    ]
    inputs = [random(60, IN, seed=3), random(60, IN, seed=4)]
    first, second = (route_factors(some, grams(some, inputs), shrinkage) for some in (parts, mixed))
    torch.testing.assert_close(first.up @ first.down, second.up @ second.down, rtol=1e-5, atol=1e-6)


def test_directions_that_nobody_uses_stay_as_they_are() -> None:
    """A Gram matrix of few inputs is singular; what it says nothing about is left to the plain sum."""
    parts = deltas([4, 4])
    C = routing_matrix(grams(parts, [random(1, IN), random(1, IN, seed=1)]), [4, 4], 0.0)
    assert torch.isfinite(C).all()
    torch.testing.assert_close(routing_matrix([torch.zeros(8, 8)] * 2, [4, 4]), torch.eye(8, dtype=torch.float64))


def test_the_type_of_the_parts_is_kept() -> None:
    parts = [Factors(p.up.float(), p.down.float()) for p in deltas([2, 2])]
    assert route_factors(parts, [torch.eye(4), torch.eye(4)]).up.dtype == torch.float32


def test_bad_input() -> None:
    with pytest.raises(InputError, match="shrinkage is -1"):
        routing_matrix([torch.eye(2)], [2], -1)
    with pytest.raises(InputError, match="need 2 Gram matrices of 4 x 4"):
        routing_matrix([torch.eye(4)], [2, 2])
