"""What sets the families apart while they train: bases, what is frozen, projections, a penalty."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor

from spectral_fusion.adapter import SpectralLayer
from spectral_fusion.base.attach import adapter_name
from spectral_fusion.base.interface import Base
from spectral_fusion.evaluate.lora import lora_adapter
from spectral_fusion.spectral import Band, Triplets, as_matrix
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.data import Example
from spectral_fusion.training.embeddings import TrainableRows
from spectral_fusion.training.loop import Loop, Progress
from spectral_fusion.training.model import TrainingModel, spectral_adapter
from spectral_fusion.training.randomness import generator
from study.activations import Grams, output_energy
from study.families import Family, matched_rank
from study.partition import balanced_directions, interleaved_directions, own_space, project_onto


@dataclass
class Adaptation:
    """What `train_adapter` does otherwise for a family: an adapter of its kind, its directions, what trains.

    triggers: of all subjects that one adapter learns.
    neutral: inputs of the base on neutral prompts, by layer; for families with a penalty.
    begun: when the adapter was ready, a time of `time.perf_counter()`.
    """

    base: Base
    family: Family
    triggers: Sequence[str]
    band: Band
    slot: int
    slots: int
    neutral: Grams
    begun: float = 0.0
    _projections: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def make(self, config: ResolvedConfig, band: Band, targets: list[str]) -> PeftConfig:
        """The PEFT settings of the adapter."""
        if self.family.kind == "embeddings":  # an adapter must be there, and stays zero
            return LoraConfig(r=1, lora_alpha=1, target_modules=targets[:1])
        if self.family.kind == "orthogonal":
            weights = {name.partition(".")[2]: as_matrix(m.weight) for name, m in self.base.layers().items()}
            ranks = {
                path: matched_rank(len(weights[path]), weights[path].shape[1], band.rank, self.slots)
                for path in targets
            }
            return LoraConfig(r=band.rank, target_modules=targets, rank_pattern=ranks, alpha_pattern=ranks)
        return (lora_adapter if self.family.kind == "lora" else spectral_adapter)(config, band, targets)

    def prepare(self, model: TrainingModel) -> TrainingModel:
        """Finish the adapter: its bases, and what does not train."""
        family, adapter = self.family, adapter_name(model.config.name)
        if len(self.triggers) > 1:
            _train_rows(self.base, self.triggers)
        if family.kind == "embeddings":
            for name, parameter in model.parameters.items():
                parameter.requires_grad_(name.endswith(".rows"))
        if family.kind == "orthogonal":
            for name, layer in _layers(self.base, LoraLayer):
                _fix_slice(name, layer, adapter, self.slot)
        if family.deal != "blocks" or family.private:
            for _, layer in _layers(self.base, SpectralLayer):
                self._projections += _own_directions(layer, adapter, family, self.band, self.slot, self.slots)
        if family.neutral_penalty:
            model = PenalizedModel(self.base, model.config, family.neutral_penalty, self.neutral)
        self.begun = time.perf_counter()
        return model

    @torch.no_grad()
    def after_step(self, loop: Loop, progress: Progress) -> None:
        """Keep private shifts in their spaces."""
        if self.family.private:
            for shift, space in self._projections:
                shift.copy_(project_onto(space, shift))


def dealt_directions(family: Family, S: Tensor, band: Band, slot: int, slots: int) -> Tensor:
    """Which singular directions of a layer the concept in `slot` has; (rank,)."""
    if family.deal == "interleaved":
        return interleaved_directions(slot, band.rank, slots)
    if family.deal == "balanced":
        return balanced_directions(S, slot, band.rank, slots)
    return torch.tensor(band.within(len(S)))


class PenalizedModel(TrainingModel):
    """Adds the energy of the delta on neutral prompts, relative to the layer's own, to the loss of every example."""

    def __init__(self, base: Base, config: ResolvedConfig, weight: float, grams: Grams):
        """grams: `x x^T` of the plain base's inputs on neutral prompts, by layer."""
        super().__init__(base, config)
        self.weight = weight
        self.grams = {
            name: (gram / _base_energy(layer, gram)).float()
            for name, layer in _layers(base, SpectralLayer)
            if (gram := grams.get(name)) is not None
        }

    def losses(self, examples: Sequence[Example], *, min_snr_gamma: float = 0.0) -> Tensor:
        return super().losses(examples, min_snr_gamma=min_snr_gamma) + self.weight * self.penalty()

    def penalty(self) -> Tensor:
        """Mean over layers of `||delta x||^2 / ||W x||^2`, both summed over the neutral inputs; ()."""
        layers = dict(_layers(self.base, SpectralLayer))
        energies = [
            output_energy(layers[name].factors(layers[name].active_adapters[0]), gram)
            for name, gram in self.grams.items()
        ]
        return torch.stack(energies).mean()


def _layers(base: Base, kind: type) -> Iterator[tuple[str, Any]]:
    for part, model in base.parts.items():
        for path, module in model.named_modules():
            if isinstance(module, kind):
                yield f"{part}.{path}", module


def _train_rows(base: Base, triggers: Sequence[str]) -> None:
    """Let the vectors of all these triggers train, in place of the one that `training_model` knows of."""
    for text in base.texts.values():
        ids = [number for trigger in triggers for number in text.token_ids(trigger)]
        text.encoder.set_input_embeddings(TrainableRows(text.embedding.embedding, ids))


def _fix_slice(name: str, layer: LoraLayer, adapter: str, slot: int) -> None:
    """A becomes slice number `slot` of the layer's one random orthogonal basis, and stays."""
    weight = layer.lora_A[adapter].weight
    rank, width = weight.shape
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator(0, "orthogonal", name))).Q
    weight.data.copy_(basis[:, slot * rank : (slot + 1) * rank].T)
    weight.requires_grad_(False)


def _own_directions(
    layer: SpectralLayer, adapter: str, family: Family, band: Band, slot: int, slots: int
) -> list[tuple[Tensor, Tensor]]:
    """Give the layer the family's directions; returns each trained shift with the space that it is kept in."""
    U, S, Vh = torch.linalg.svd(as_matrix(layer.get_base_layer().weight.detach().float()), full_matrices=True)
    mine = dealt_directions(family, S, band, slot, slots)
    basis = Triplets(U[:, mine], S[mine], Vh.T[:, mine])
    for name, part in zip(layer.basis_names, basis, strict=True):
        getattr(layer, name)[adapter] = part.contiguous()
    shifts = (layer.spectral_A[adapter], layer.spectral_B[adapter])
    spaces = (own_space(vectors, mine, slot, band.rank, slots) for vectors in (U, Vh.T))
    return list(zip(shifts, spaces, strict=True))


def _base_energy(layer: SpectralLayer, gram: Tensor) -> Tensor:
    weight = layer.get_base_layer().weight.detach().double()
    return ((weight @ gram) * weight).sum()
