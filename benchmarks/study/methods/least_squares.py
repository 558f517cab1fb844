"""Fusing with data: gradient fusion, and the weights of a plain sum in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from spectral_fusion.base.interface import Base
from spectral_fusion.spectral import Factors, sum_factors
from study.activations import Grams
from study.methods.applied import Deltas, Merge
from study.methods.inputs import concept_inputs
from study.methods.merging import present_factors
from study.settings import Settings
from study.training import Adapter

HISTORY = 25  # steps that L-BFGS remembers
RIDGE = 1e-6  # of the mean diagonal: two concepts with parallel deltas leave the weights open
FUSION_RIDGE = 1e-3  # the same for a whole delta: without it, it is large on what hardly any input has


Solve = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""The deltas and the `X_i X_i^T` of one layer -> the joint delta."""


def gradient_fusion(settings: Settings, solve: Solve | None = None) -> Merge:
    """Mix-of-Show's fusion (Gu et al., 2023, section 3.3): one weight that answers each concept's inputs as its own.

    Args:
        solve: `exact_least_squares_delta`, or the published L-BFGS if left out.
    """
    solve = solve or partial(least_squares_delta, iterations=settings.fusion_iterations)

    def merge(base: Base, adapters: Sequence[Adapter]) -> Deltas:
        grams = concept_inputs(base, adapters, settings)
        return {
            name: _layer_delta(factors, _of_layer(grams, name), solve) for name, factors in present_factors(adapters)
        }

    return merge


def closed_form_weights(settings: Settings) -> Merge:
    """The sum with the weights, of each layer, that answer each concept's inputs most nearly as the concept alone."""

    def merge(base: Base, adapters: Sequence[Adapter]) -> Deltas:
        grams = concept_inputs(base, adapters, settings)
        deltas = {}
        for name, factors in present_factors(adapters):
            weights = best_weights([f.up @ f.down for f in factors], _of_layer(grams, name)).float()
            deltas[name] = sum_factors([Factors(w * f.up, f.down) for w, f in zip(weights, factors, strict=True)])
        return deltas

    return merge


def least_squares_delta(deltas: Sequence[Tensor], grams: Sequence[Tensor], iterations: int) -> Tensor:
    """The D that minimises `sum_i ||(D - delta_i) X_i||^2`, by L-BFGS from zero, in float64.

    The loss needs only `X_i X_i^T`, so its cost does not grow with the number of inputs. Starting from zero, D stays
    zero on what no input has: the smallest of all solutions.

    Args:
        deltas: each (out, in).
        grams: each `X_i X_i^T`, (in, in).
        iterations: of L-BFGS, at most.
    """
    inputs = torch.stack([gram.double() for gram in grams])
    total = inputs.sum(0)
    aim = (torch.stack([delta.double() for delta in deltas]) @ inputs).sum(0)
    scale = total.diagonal().mean()
    total, aim = total / scale, aim / scale
    found = torch.zeros_like(aim, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [found],
        max_iter=iterations,
        history_size=HISTORY,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        # up to a constant half the loss; its gradient is `D total - aim`
        found.grad = (found.detach() @ total) - aim
        return (found.detach() * (0.5 * (found.detach() @ total) - aim)).sum()

    optimizer.step(closure)
    return found.detach()


def exact_least_squares_delta(deltas: Sequence[Tensor], grams: Sequence[Tensor], ridge: float = FUSION_RIDGE) -> Tensor:
    """The D that minimises `sum_i ||(D - delta_i) X_i||^2`, from the normal equations, in float64.

    What L-BFGS comes near to, in a tenth of the time. That is stopped before it answers to what hardly any input has;
    here a ridge does it.

    Args:
        deltas: each (out, in).
        grams: each `X_i X_i^T`, (in, in).
        ridge: of the mean diagonal of the sum of grams.
    """
    inputs = torch.stack([gram.double() for gram in grams])
    total = inputs.sum(0)
    aim = (torch.stack([delta.double() for delta in deltas]) @ inputs).sum(0)
    held = ridge * total.diagonal().mean() * torch.eye(len(total), dtype=total.dtype)
    return torch.linalg.solve(total + held, aim, left=False)


def best_weights(deltas: Sequence[Tensor], grams: Sequence[Tensor]) -> Tensor:
    """The w that minimise `sum_i ||(sum_j w_j delta_j - delta_i) X_i||^2`, from the normal equations; (concepts,).

    With one and the same inputs for all it is 1 / n each, the mean.
    """
    stacked = torch.stack([delta.double() for delta in deltas])
    inputs = torch.stack([gram.double() for gram in grams])
    normal = torch.einsum("joi,koi->jk", stacked @ inputs.sum(0), stacked)
    aim = torch.einsum("joi,koi->j", stacked, stacked @ inputs)
    ridge = RIDGE * normal.diagonal().mean().clamp(min=1e-30)
    return torch.linalg.solve(normal + ridge * torch.eye(len(stacked), dtype=normal.dtype), aim)


def _layer_delta(factors: Sequence[Factors], grams: Sequence[Tensor], solve: Solve) -> Factors:
    dense = solve([part.up @ part.down for part in factors], grams).float()
    return Factors(dense, torch.eye(dense.shape[1]))


def _of_layer(grams: Sequence[Grams], name: str) -> list[Tensor]:
    return [gram[name] for gram in grams if name in gram]
