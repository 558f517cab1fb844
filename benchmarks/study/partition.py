"""Dealing the singular directions of a weight out to concepts: which are whose, and the space that nobody else enters.

`Band` deals them in blocks, largest singular values first. Here are other ways, and the projection that makes deltas of
different concepts orthogonal: an additive delta is `A S (V + B)^T + U S B^T`, so that its columns lie in the span of
[U, A] and its rows in that of [V, B]; where these spans are kept apart, every product of two deltas vanishes.
"""

import torch
from torch import Tensor

from spectral_fusion.errors import InputError


def interleaved_directions(index: int, rank: int, slots: int) -> Tensor:
    """Every `slots`-th of the first `rank * slots` directions, from number `index` on; (rank,)."""
    _check(index, slots)
    return index + slots * torch.arange(rank)


def balanced_directions(S: Tensor, index: int, rank: int, slots: int) -> Tensor:
    """The directions of one of `slots` groups that have nearly the same energy, the sum of `S^2`; (rank,), ascending.

    The first `rank * slots` directions go, largest first, to the group that has least so far and is not full.

    Args:
        S: singular values, descending; at least `rank * slots`.
    """
    _check(index, slots)
    groups: list[list[int]] = [[] for _ in range(slots)]
    energies = [0.0] * slots
    for direction, energy in enumerate(S[: rank * slots].double().square().tolist()):
        group = min((g for g in range(slots) if len(groups[g]) < rank), key=lambda g: energies[g])
        groups[group].append(direction)
        energies[group] += energy
    return torch.tensor(groups[index])


def own_space(basis: Tensor, directions: Tensor, index: int, rank: int, slots: int) -> Tensor:
    """A concept's directions and its private slice of what no concept has as a direction.

    The columns from `rank * slots` on are dealt out like cards. Different indices with disjoint directions get
    orthogonal spaces.

    Args:
        basis: (n, n), orthonormal: all left, or all right, singular vectors of a weight.
        directions: (rank,), which columns the concept has; among the first `rank * slots`.

    Returns:
        (n, rank + share of the rest), orthonormal columns.
    """
    _check(index, slots)
    return torch.cat([basis[:, directions], basis[:, rank * slots + index :: slots]], dim=1)


def project_onto(space: Tensor, shift: Tensor) -> Tensor:
    """What of `shift` (n, r) lies in the span of the orthonormal columns of `space` (n, k); (n, r)."""
    return space @ (space.T @ shift)


def _check(index: int, slots: int) -> None:
    if not 0 <= index < slots:
        raise InputError(f"slot {index} does not exist; directions are dealt out to {slots} concepts, counted from 0")
