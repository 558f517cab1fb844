"""Other ways of dealing directions out, and deltas that are kept apart."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Factors, additive_factors
from study.partition import balanced_directions, interleaved_directions, own_space, project_onto

RANK, SLOTS = 3, 4
S = torch.linspace(9, 1, 17, dtype=torch.float64).square()
DEALS: dict[str, Callable[[int], Tensor]] = {
    "blocks": lambda index: torch.arange(index * RANK, (index + 1) * RANK),
    "interleaved": lambda index: interleaved_directions(index, RANK, SLOTS),
    "balanced": lambda index: balanced_directions(S, index, RANK, SLOTS),
}


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
def test_every_leading_direction_has_one_owner(deal: Callable[[int], Tensor]) -> None:
    dealt = torch.cat([deal(index) for index in range(SLOTS)])
    assert sorted(dealt.tolist()) == list(range(RANK * SLOTS))


def test_balanced_groups_differ_less_in_energy_than_blocks_and_than_every_nth() -> None:
    def spread(deal: Callable[[int], Tensor]) -> float:
        energies = [float(S[deal(index)].square().sum()) for index in range(SLOTS)]
        return max(energies) / min(energies)

    assert spread(DEALS["balanced"]) < spread(DEALS["interleaved"]) < spread(DEALS["blocks"])


@pytest.mark.parametrize("shape", [(17, 17), (29, 17), (17, 23)])
@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
def test_projected_deltas_of_different_slots_are_orthogonal_both_ways(
    deal: Callable[[int], Tensor], shape: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    U, values, Vh = torch.linalg.svd(weight, full_matrices=True)
    deltas = []
    for index in range(SLOTS):
        mine = deal(index)
        shifts = []
        for basis in (U, Vh.T):
            shift = torch.randn(len(basis), RANK, generator=generator, dtype=torch.float64)
            shifts.append(project_onto(own_space(basis, mine, index, RANK, SLOTS), shift))
        deltas.append(_dense(additive_factors(U[:, mine], values[mine], Vh.T[:, mine], *shifts)))
    for i in range(SLOTS):
        for j in range(i):
            assert (deltas[i].T @ deltas[j]).abs().max() < 1e-10
            assert (deltas[i] @ deltas[j].T).abs().max() < 1e-10
    assert all(delta.norm() > 1 for delta in deltas)


def test_own_spaces_fill_the_whole_space_between_them() -> None:
    basis = torch.linalg.qr(torch.randn(19, 19, dtype=torch.float64)).Q
    spaces = [own_space(basis, DEALS["blocks"](index), index, RANK, SLOTS) for index in range(SLOTS)]
    together = torch.cat(spaces, dim=1)
    assert torch.allclose(together @ together.T, torch.eye(19, dtype=torch.float64), atol=1e-12)


def test_projecting_twice_is_projecting_once() -> None:
    space = torch.linalg.qr(torch.randn(19, 5, dtype=torch.float64)).Q
    once = project_onto(space, torch.randn(19, RANK, dtype=torch.float64))
    assert torch.allclose(project_onto(space, once), once, atol=1e-12)
    assert torch.allclose(project_onto(space, space), space, atol=1e-12)


def test_a_slot_beyond_the_last_is_refused() -> None:
    with pytest.raises(InputError, match="slot 4 does not exist"):
        interleaved_directions(SLOTS, RANK, SLOTS)


def _dense(factors: Factors) -> Tensor:
    return factors.up @ factors.down
