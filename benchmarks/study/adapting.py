"""What sets the families apart while they train: bases, what is frozen, projections, a penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor

from spectral_fusion.adapter import SpectralLayer
from spectral_fusion.concept.fingerprint import pipeline_layers
from spectral_fusion.evaluate.lora import lora_adapter
from spectral_fusion.spectral import Band, Triplets, as_matrix
from spectral_fusion.train.config import TrainConfig
from spectral_fusion.train.data import Example
from spectral_fusion.train.randomness import generator
from spectral_fusion.train.trainee import Trainee, spectral_adapter
from study.activations import Grams, output_energy
from study.families import Family, matched_rank
from study.partition import balanced_directions, interleaved_directions, own_space, project_onto

AfterStep = Callable[[], None]


def adapter_config(
    pipeline: StableDiffusionPipeline, family: Family, slots: int
) -> Callable[[TrainConfig, Band, list[str]], PeftConfig]:
    """Makes the PEFT settings that `trainee` puts on the base."""
    shapes = {
        name.partition(".")[2]: as_matrix(layer.weight).shape for name, layer in pipeline_layers(pipeline).items()
    }

    def one_sided(config: TrainConfig, band: Band, targets: list[str]) -> LoraConfig:
        ranks = {path: matched_rank(shapes[path][0], shapes[path][1], band.rank, slots) for path in targets}
        return LoraConfig(r=band.rank, target_modules=targets, rank_pattern=ranks, alpha_pattern=ranks)

    known = {"lora": lora_adapter, "orthogonal": one_sided, "embeddings": _smallest_lora}
    return known.get(family.kind, spectral_adapter)


def prepare(
    pipeline: StableDiffusionPipeline, family: Family, adapter: str, band: Band, slot: int, slots: int
) -> AfterStep:
    """Finish the adapter that `trainee` put on: bases, and what does not train.

    Args:
        adapter: its name.

    Returns:
        What to call after each optimizer step.
    """
    if family.kind == "embeddings":
        for model in (pipeline.unet, pipeline.text_encoder):
            model.requires_grad_(False)
    if family.kind == "orthogonal":
        for name, layer in _layers(pipeline, LoraLayer):
            _fix_slice(name, layer, adapter, slot)
    if family.deal == "blocks" and not family.private:
        return lambda: None
    projections = [
        _own_directions(layer, adapter, family, band, slot, slots) for _, layer in _layers(pipeline, SpectralLayer)
    ]
    return (lambda: _project_all(projections)) if family.private else (lambda: None)


def dealt_directions(family: Family, S: Tensor, band: Band, slot: int, slots: int) -> Tensor:
    """Which singular directions of a layer the concept in `slot` has; (rank,)."""
    if family.deal == "interleaved":
        return interleaved_directions(slot, band.rank, slots)
    if family.deal == "balanced":
        return balanced_directions(S, slot, band.rank, slots)
    return torch.tensor(band.within(len(S)))


class PenalisedTrainee(Trainee):
    """Adds the energy of the delta on neutral prompts, relative to the layer's own, to the loss of every sample."""

    def __init__(self, pipeline: StableDiffusionPipeline, config: TrainConfig, weight: float, grams: Grams):
        """grams: `x x^T` of the plain base's inputs on neutral prompts, by layer."""
        super().__init__(pipeline, config)
        self.weight = weight
        self.grams = {
            name: (gram / _base_energy(layer, gram)).float()
            for name, layer in _layers(pipeline, SpectralLayer)
            if (gram := grams.get(name)) is not None
        }

    def losses(self, samples: Sequence[Example], *, min_snr_gamma: float = 0.0) -> Tensor:
        return super().losses(samples, min_snr_gamma=min_snr_gamma) + self.weight * self.penalty()

    def penalty(self) -> Tensor:
        """Mean over layers of `||delta x||^2 / ||W x||^2`, both summed over the neutral inputs; ()."""
        layers = dict(_layers(self.pipeline, SpectralLayer))
        energies = [
            output_energy(layers[name].factors(layers[name].active_adapters[0]), gram)
            for name, gram in self.grams.items()
        ]
        return torch.stack(energies).mean()


def _layers(pipeline: StableDiffusionPipeline, kind: type) -> Iterator[tuple[str, Any]]:
    for component in ("unet", "text_encoder"):
        for path, module in getattr(pipeline, component).named_modules():
            if isinstance(module, kind):
                yield f"{component}.{path}", module


def _smallest_lora(config: TrainConfig, band: Band, targets: list[str]) -> LoraConfig:
    """For a training of nothing but embeddings: an adapter must be there, and stays zero."""
    return LoraConfig(r=1, lora_alpha=1, target_modules=targets[:1])


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


@torch.no_grad()
def _project_all(projections: list[list[tuple[Tensor, Tensor]]]) -> None:
    for layer in projections:
        for shift, space in layer:
            shift.copy_(project_onto(space, shift))


def _base_energy(layer: SpectralLayer, gram: Tensor) -> Tensor:
    weight = layer.get_base_layer().weight.detach().double()
    return ((weight @ gram) * weight).sum()
