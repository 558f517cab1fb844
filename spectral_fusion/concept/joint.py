"""Several concepts as one: their joint delta, and how much their bands have in common."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from spectral_fusion.concept.file import Concept, LayerTensors
from spectral_fusion.errors import InputError, shown
from spectral_fusion.spectral import Factors, additive_factors, band_overlap, sum_factors

NEGLIGIBLE = 1e-3  # overlap that rounding of the saved vectors and of separate decompositions can amount to


@dataclass(frozen=True)
class Overlap:
    """What the bands of two concepts have in common in one layer, as `spectral.band_overlap` measures it: 0 ... 1."""

    first: str
    second: str
    layer: str
    value: float


def layer_names(concepts: Iterable[Concept]) -> list[str]:
    """Layers that any of the concepts adapts, in the order of the concepts."""
    return list(dict.fromkeys(name for concept in concepts for name in concept.layers))


def joint_factors(concepts: Mapping[Concept, float], layer: str) -> Factors:
    """Factors of `sum of weight * delta` in one layer, over the concepts that adapt it.

    The sum of additive concepts is one additive adapter over the union of their bands ("frequency division" in
    "Spectral Adapter", arXiv 2405.13952, section 4), so one call computes them all: up = [A_1 ... A_n, U_1 ... U_n].

    Returns:
        Factors whose rank is the sum of the concepts' `factor_rank`.
    """
    present = {concept: weight for concept, weight in concepts.items() if layer in concept.layers}
    parts = []
    if additive := {concept: weight for concept, weight in present.items() if concept.mode == "additive"}:
        parts.append(_union([(concept.layers[layer], weight * concept.alpha) for concept, weight in additive.items()]))
    for concept, weight in present.items():
        if concept.mode == "rotational":
            up, down = concept.factors(layer)
            parts.append(Factors(up * weight, down))
    return sum_factors(parts)


def check_same_base(concepts: Sequence[Concept]) -> None:
    """Raises InputError where there is no concept, two were trained on different bases, or a common layer differs."""
    if not concepts:
        raise InputError("no concept given; name at least one")
    first = concepts[0]
    for other in concepts[1:]:
        if other.base != first.base:
            bases = [f"{concept.base} {concept.base_name}".rstrip() for concept in (first, other)]
            raise InputError(
                f"{first.name!r} was trained on base {bases[0]}, {other.name!r} on {bases[1]}; "
                "concepts add up on one base only, train them on the same"
            )
    owners: dict[str, Concept] = {}
    for concept in concepts:
        for layer in concept.layers:
            first = owners.setdefault(layer, concept)
            shapes = [_shape(owner, layer) for owner in (first, concept)]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"{first.name!r} and {concept.name!r} name one base, but layer {shown(layer)} is {shapes[0]} in "
                    f"the one and {shapes[1]} in the other; one of the files is damaged, get it or train it again"
                )


def _shape(concept: Concept, layer: str) -> str:
    """Of a layer's weight, as a concept has it: `8 x 36 (kernel 3 x 3)`."""
    basis, kernel = concept.layers[layer].basis, concept.kernels.get(layer)
    shape = f"{len(basis.U)} x {len(basis.V)}"
    return f"{shape} (kernel {kernel[0]} x {kernel[1]})" if kernel else shape


def measure_overlaps(concepts: Sequence[Concept]) -> list[Overlap]:
    """The overlap of each two concepts in the layer where it is largest; pairs without a common layer are left out.

    The cosines of all saved vectors of a layer come from one product, which bounds the overlaps (a Frobenius norm is at
    least the spectral norm). A negligible bound is given as it is; else the layers that could hold the largest overlap
    are measured exactly.
    """
    names = layer_names(concepts)
    bounds = torch.stack([_bounds(concepts, name) for name in names]) if names else torch.empty(0)
    overlaps = []
    for i, j in combinations(range(len(concepts)), 2):
        common = concepts[i].layers.keys() & concepts[j].layers.keys()
        worst: Overlap | None = None
        for at in bounds[:, i, j].argsort(descending=True).tolist():
            bound = bounds[at, i, j].item()
            if names[at] not in common or (worst and bound <= max(worst.value, NEGLIGIBLE)):
                break
            bases = [concepts[k].layers[names[at]].basis for k in (i, j)]
            value = bound if bound <= NEGLIGIBLE else band_overlap(*bases)
            if worst is None or value > worst.value:
                worst = Overlap(concepts[i].name, concepts[j].name, names[at], value)
        if worst:
            overlaps.append(worst)
    return overlaps


def _bounds(concepts: Sequence[Concept], layer: str) -> Tensor:
    """(n, n): at least the overlap of each two concepts in a layer; -1 where one of them does not adapt it."""
    present = [i for i, concept in enumerate(concepts) if layer in concept.layers]
    ranks = torch.tensor([concepts[i].band.rank for i in present])
    owner = torch.zeros(len(present), int(ranks.sum()))
    owner[torch.arange(len(present)).repeat_interleave(ranks), torch.arange(int(ranks.sum()))] = 1
    squares = []
    for part in ("U", "V"):
        vectors = torch.cat([getattr(concepts[i].layers[layer].basis, part) for i in present], dim=1)
        squares.append(owner @ (vectors.T @ vectors).square() @ owner.T)
    bounds = torch.full((len(concepts), len(concepts)), -1.0)
    bounds[torch.tensor(present)[:, None], torch.tensor(present)] = torch.maximum(*squares).sqrt()
    return bounds


def _union(layers: Sequence[tuple[LayerTensors, float]]) -> Factors:
    """The additive adapter over the union of several bands, each delta times its number.

    Every term of a delta has one factor S or c, so these carry the number: they are the smallest of the tensors.
    """
    shifted = any("c" in layer.trained for layer, _ in layers)
    parts = []
    for layer, number in layers:
        part = {"c": torch.zeros_like(layer.basis.S), **layer.tensors()} if shifted else layer.tensors()
        parts.append(part | {key: part[key] * number for key in ("S", "c") if key in part})
    return additive_factors(**{key: torch.cat([part[key] for part in parts], dim=-1) for key in parts[0]})
