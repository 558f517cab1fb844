"""Fusing: the weighted deltas of several concepts, summed into a base's weights. No training, no data."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch

from spectral_fusion.atomic import atomic_folder
from spectral_fusion.base.attach import active_adapters, check_fits
from spectral_fusion.base.interface import Base, Embeddings
from spectral_fusion.base.merged import MergedWeights
from spectral_fusion.base.routing import route
from spectral_fusion.concept import Concept
from spectral_fusion.concept.community import LoraFile
from spectral_fusion.concept.joint import Overlap, check_same_base, joint_factors, layer_names, measure_overlaps
from spectral_fusion.concept.lora import LoraFormat, check_finite, export_lora, provenance
from spectral_fusion.concept.metadata import check_weight, is_number
from spectral_fusion.errors import InputError
from spectral_fusion.names import key
from spectral_fusion.picture import format_weights
from spectral_fusion.spectral import SHRINKAGE, Factors, sum_factors

logger = logging.getLogger(__name__)

Reduce = Literal["sum", "mean", "routed"]
OnOverlap = Literal["error", "warn", "allow"]

OVERLAP_TOLERANCE = 0.01
"""Bands are disjoint below this. Separate decompositions of one weight, saved in float16, stay under 0.001."""

PROVENANCE_FILE = "spectral_fusion.json"


@dataclass(eq=False)
class Fusion:
    """Concepts that are in a base's weights, and the way back."""

    base: Base
    concepts: dict[Concept, float]
    """Weights as given; `reduce="mean"` divides them by their number."""
    loras: dict[LoraFile, float]
    reduce: Reduce
    overlaps: list[Overlap]
    cost: str
    """What finding the weights took, beyond a sum; empty for a sum."""
    layers: list[str] = field(repr=False)
    factors: Callable[[str], Factors] = field(repr=False)
    """The joint delta of one of the layers, as it was added."""
    _weights: MergedWeights = field(repr=False)
    _undone: bool = field(default=False, repr=False)

    @property
    def notes(self) -> dict[str, str]:
        """What pictures made with it should say of it, for `GenerateConfig.notes`: the concepts, and the plain base."""
        listed = {subject.name: weight for part in (self.concepts, self.loras) for subject, weight in part.items()}
        reduced = {} if self.reduce == "sum" else {"Fused by": self.reduce}
        return {"Model hash": next(iter(self.concepts)).base[:10], "Concepts": format_weights(listed)} | reduced

    def undo(self) -> None:
        """Put every weight back bit for bit, and forget the tokens.

        Raises:
            InputError: this fusion has been undone already.
        """
        if self._undone:
            raise InputError("this fusion has been undone already; fuse again")
        self._weights.take()
        self.base.remove_words(list(_words([*self.concepts, *self.loras])))
        self.base.fused, self._undone = (), True

    def export(self, path: str | Path, to: LoraFormat = "diffusers", *, dtype: torch.dtype = torch.float32) -> Path:
        """Write what was added to the weights as one LoRA; see `concept.lora.export_lora`."""
        shapes = {name: layer.weight.shape for name, layer in self.base.layers().items()}
        kernels = {name: tuple(shapes[name][2:]) for name in self.layers if len(shapes[name]) == 4}
        joint = {name: self.factors(name) for name in self.layers}
        return export_lora(self.concepts, path, to, dtype=dtype, joint=joint, kernels=kernels)

    def without(self, concept: Concept) -> Fusion:
        """Take one concept out: bit for bit what fusing the others gives. This fusion counts as undone.

        Raises:
            InputError: the concept is not in here, or it is the only one.
        """
        rest = {other: weight for other, weight in self.concepts.items() if other is not concept}
        if len(rest) == len(self.concepts):
            raise InputError(f"concept {concept.name!r} is not in this fusion; nothing to remove")
        if not rest:
            raise InputError(f"concept {concept.name!r} is the only one of this fusion; undo the fusion")
        self.undo()
        return fuse(self.base, rest, loras=self.loras, reduce=self.reduce, on_overlap="allow")

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the base as a diffusers folder that a stock `from_pretrained` loads, tokens included.

        Args:
            force: replace a folder that is there.

        Raises:
            InputError: the folder is there, the fusion is undone, or adapters are attached.
        """
        folder = Path(folder)
        if self._undone:
            raise InputError("this fusion has been undone; fuse again before saving")
        if folder.exists() and not force:
            raise InputError(f"{folder} exists already; choose another folder or give --force")
        if names := [name for model in self.base.parts.values() for name in active_adapters(model)]:
            raise InputError(f"adapters {', '.join(names)} are attached; a folder cannot hold them, detach them first")
        layers = self.base.layers()
        check_finite((layers[name].weight for name in layer_names(self.concepts)), f"the model {folder}")
        with atomic_folder(folder) as part:
            self.base.save(str(part))
            record = provenance(self.concepts) | {"spectral_fusion.reduce": self.reduce}
            (part / PROVENANCE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return folder


def fuse(
    base: Base,
    concepts: Mapping[Concept, float],
    *,
    loras: Mapping[LoraFile, float] | None = None,
    reduce: Reduce = "sum",
    shrinkage: float = SHRINKAGE,
    on_overlap: OnOverlap = "error",
) -> Fusion:
    """Add the weighted deltas of concepts to a base's weights, and their tokens to its vocabulary.

    `W + sum_i w_i delta_i`; `reduce="mean"` divides by the number of concepts, as the authors' code does, and "routed"
    puts a matrix between their factors, so that the joint delta acts on each one's prompts as that one alone: see
    `base.routing`. Everything is checked before anything is touched. The base's old weights stay in memory for
    `Fusion.undo`.

    Args:
        loras: read for this base; they join the concepts.
        shrinkage: of the routing; the larger, the nearer to the sum.
        on_overlap: what to do where two bands share a direction.

    Raises:
        InputError: no concept, names or triggers twice, a weight that is no number, a concept of another base, bands
            that overlap, or a base that has concepts fused already.
    """
    weights = scaled_weights(concepts, reduce)
    if on_overlap not in get_args(OnOverlap):
        raise InputError(f"on_overlap {on_overlap!r} is unknown; use one of {', '.join(get_args(OnOverlap))}")
    overlaps = check_together(list(concepts), on_overlap)
    check_fits(base, *concepts)
    beside = {lora: check_lora_weight(lora, weight) for lora, weight in (loras or {}).items()}
    if reduce == "mean" and beside:
        total = len(concepts) + len(beside)
        weights = {concept: weight * len(concepts) / total for concept, weight in weights.items()}
        beside = {lora: weight / total for lora, weight in beside.items()}
    _check_names([*concepts, *beside])
    brought = _words([*concepts, *beside])
    for word, rows in brought.items():
        base.check_words(word, rows)
    layers = list(dict.fromkeys([*layer_names(concepts), *(layer for lora in beside for layer in lora.layers)]))
    if reduce == "routed":
        routed = route(base, {**weights, **beside}, shrinkage=shrinkage)
        factors: Callable[[str], Factors] = routed.deltas.__getitem__
        cost = f"routed in {routed.seconds:.1f} s, {routed.passes} pictures through the denoiser"
    else:
        factors, cost = partial(summed, weights, beside), ""
    merged = MergedWeights(base, layers, factors)
    merged.put()
    merged.drop_merged()
    base.add_words(brought)
    base.fused = (*(concept.name for concept in concepts), *(lora.name for lora in beside))
    return Fusion(base, dict(concepts), dict(loras or {}), reduce, overlaps, cost, layers, factors, merged)


def summed(concepts: Mapping[Concept, float], loras: Mapping[LoraFile, float], layer: str) -> Factors:
    """The weighted sum of what concepts and LoRAs change in one layer."""
    own = {concept: weight for concept, weight in concepts.items() if layer in concept.layers}
    parts = [joint_factors(own, layer)] if own else []
    for lora, weight in loras.items():
        if layer in lora.layers:
            up, down = lora.factors(layer)
            parts.append(Factors(up * weight, down))
    return sum_factors(parts)


def check_lora_weight(lora: LoraFile, weight: float) -> float:
    """Return a weight that is a number. Raises InputError for another."""
    if not is_number(weight):
        raise InputError(f"LoRA {lora.name!r} has the weight {weight!r}; give a number such as 0.8")
    return weight


def _words(subjects: Sequence[Concept | LoraFile]) -> dict[str, Embeddings]:
    """The words that they bring. Raises InputError where two bring the same."""
    brought: dict[str, Embeddings] = {}
    for subject in subjects:
        for word, rows in subject.words.items():
            if key(word) in map(key, brought):
                raise InputError(f"two of what is fused bring the word {word}; rename one of them")
            brought[word] = rows
    return brought


def _check_names(subjects: Sequence[Concept | LoraFile]) -> None:
    names = [key(subject.name) for subject in subjects]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two of what is fused are called {twice[0]!r}; rename one of them")


def scaled_weights(concepts: Mapping[Concept, float], reduce: Reduce = "sum") -> dict[Concept, float]:
    """What each delta is multiplied by: the weights as given, or over their number for the mean.

    Raises:
        InputError: a weight is no number, or `reduce` is unknown.
    """
    if reduce not in get_args(Reduce):
        raise InputError(f"reduce {reduce!r} is unknown; use one of {', '.join(get_args(Reduce))}")
    divisor = len(concepts) if reduce == "mean" else 1
    return {concept: check_weight(concept, weight) / divisor for concept, weight in concepts.items()}


def check_together(concepts: list[Concept], on_overlap: OnOverlap = "error") -> list[Overlap]:
    """Check that concepts can share one base, and return the overlap of each two.

    Raises:
        InputError: no concept, different bases, names or triggers twice, or (`on_overlap="error"`) overlapping bands.
    """
    check_same_base(concepts)
    for what in ("name", "trigger"):
        values = [key(getattr(concept, what)) for concept in concepts]
        if twice := [value for value in values if values.count(value) > 1]:
            raise InputError(f"two concepts have the {what} {twice[0]!r}; rename one of them")
    overlaps = measure_overlaps(concepts)
    for overlap in overlaps:
        if overlap.value > OVERLAP_TOLERANCE and on_overlap != "allow":
            message = (
                f"the bands of {overlap.first!r} and {overlap.second!r} overlap by {overlap.value:.2f} in "
                f"{overlap.layer!r}; train one of them in a free band, or set on_overlap to allow"
            )
            if on_overlap == "error":
                raise InputError(message)
            logger.warning(message)
    return overlaps
