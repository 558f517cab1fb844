"""Parameter efficiency on one subject: identity against trained numbers, the axes of the paper's Figure 6.

Each method adapts the attention projections of the bundled base's UNet, and trains the subject's token beside. VeRA is
written here as a LoRA whose matrices are frozen and shared, with a trained scale for each row: PEFT's own shares state
between layers, which diffusers cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from peft import LoraConfig, OFTConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.base.attach import adapter_name
from spectral_fusion.base.interface import Base, words
from spectral_fusion.base.merged import MergedWeights
from spectral_fusion.base.presets import ATTENTION
from spectral_fusion.spectral import Band, Factors, Mode
from spectral_fusion.training.config import ResolvedConfig, TrainConfig
from spectral_fusion.training.loop import Diverged
from spectral_fusion.training.model import TrainingModel
from spectral_fusion.training.single import subject_pictures, train_adapter
from study.identities import Subject
from study.judging import Jury

MakeConfig = Callable[[int, list[str]], PeftConfig]


@dataclass(frozen=True)
class Method:
    """One line of the figure.

    sizes: r, or OFT's block size; they span what the base's layers allow between 1,000 and a million numbers.
    rate: the learning rate that the factors of the search multiply.
    """

    title: str
    sizes: tuple[int, ...]
    rate: float
    make: MakeConfig


def _spectral(mode: Mode) -> MakeConfig:
    return lambda size, targets: SpectralConfig(r=size, mode=mode, target_modules=targets)


def _lora(size: int, targets: list[str]) -> PeftConfig:
    return LoraConfig(r=size, lora_alpha=size, target_modules=targets)


def _oft(size: int, targets: list[str]) -> PeftConfig:
    return OFTConfig(r=0, oft_block_size=size, target_modules=targets)


METHODS = {
    "embeddings": Method("token embeddings alone", (1,), 1e-3, _lora),
    "rotational": Method("rotational", (3, 8, 16, 32, 64, 96), 5e-2, _spectral("rotational")),
    "additive": Method("additive", (1, 2, 4, 8, 16, 32, 56), 5e-3, _spectral("additive")),
    "lora": Method("LoRA", (1, 2, 4, 8, 16, 32, 56), 1.5e-2, _lora),
    "oft": Method("OFT", (2, 4, 8, 16, 32, 64), 1e-2, _oft),
    "vera": Method("VeRA", (4, 64, 256, 1024), 5e-2, _lora),
}


class RowScale(nn.Module):
    """A frozen matrix with a trained scale for each row."""

    def __init__(self, rows: int, start: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((rows, 1), start))

    def forward(self, weight: Tensor) -> Tensor:
        return self.scale * weight


def make_vera(layers: list[LoraLayer], adapter: str) -> None:
    """Turn LoRAs into VeRAs: `delta = diag(b) B diag(d) A`, A and B random, frozen, and the same in all layers."""
    rank = max(layer.r[adapter] for layer in layers)
    width = max(max(layer.in_features, layer.out_features) for layer in layers)
    source = torch.Generator().manual_seed(0)
    A, B = (torch.randn(width, rank, generator=source) / rank**0.5 for _ in range(2))
    for layer in layers:
        parts = ((layer.lora_A[adapter], A[: layer.in_features].T, 0.1), (layer.lora_B[adapter], B, 0.0))
        for linear, shared, start in parts:
            linear.weight.data.copy_(shared[: len(linear.weight)])
            linear.weight.requires_grad_(False)
            parametrize.register_parametrization(linear, "weight", RowScale(len(linear.weight), start))


def tuned_layers(base: Base) -> dict[str, BaseTunerLayer]:
    return {
        f"{part}.{path}": module
        for part, model in base.parts.items()
        for path, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }


def dense_deltas(base: Base) -> dict[str, Tensor]:
    """What the adapter on the base adds to each weight, whatever its kind; the weights stay as they are."""
    found = {}
    for name, layer in tuned_layers(base).items():
        weight = layer.get_base_layer().weight
        before = weight.detach().clone()
        layer.merge()
        found[name] = weight.detach() - before
        layer.unmerge()
        weight.data.copy_(before)  # OFT divides its rotation out again, which rounds
    return found


@dataclass(frozen=True)
class Trained:
    """What a training came to. numbers: how many it set, token embeddings apart."""

    deltas: dict[str, Tensor]
    embeddings: dict[str, Tensor]
    numbers: int
    seconds: float = 0.0


def settings_of(base: Base, subject: Subject, method: str, factor: float, steps: int, seed: int) -> ResolvedConfig:
    config = TrainConfig(
        name=subject.name,
        class_word=subject.class_word,
        base=base.name or "a loaded pipeline",
        mode="rotational" if method == "rotational" else "additive",
        steps=steps,
        batch_size=4,
        distillation_prompts=0,
        target=ATTENTION,
        seed=seed,
        learning_rate_embedding=2e-3,
        learning_rate_text_encoder=0.0,
        learning_rate_unet=METHODS[method].rate * factor,
    )
    return config.resolved(base.presets(config.mode, config.preset), "fp32")


def train(base: Base, folder: Any, config: ResolvedConfig, method: str, size: int) -> Trained:
    """Train a subject with one method at one size. The base is afterwards as before."""
    adapter, counted = adapter_name(config.name), 0

    def prepare(model: TrainingModel) -> TrainingModel:
        nonlocal counted
        if method == "vera":
            make_vera([layer for layer in tuned_layers(base).values() if isinstance(layer, LoraLayer)], adapter)
        if method == "embeddings":
            for layer in tuned_layers(base).values():
                layer.requires_grad_(False)
        counted = sum(p.numel() for name, p in model.parameters.items() if not name.endswith(".rows"))
        return model

    def result(_: object) -> Trained:
        rows = {
            part: text.embedding.weight[text.token_ids(config.trigger)].detach().clone()
            for part, text in base.texts.items()
        }
        return Trained(dense_deltas(base), rows, counted)

    return train_adapter(
        base,
        [subject_pictures(base, folder, config)],
        config,
        Band(0, 1),
        None,
        result,
        adapter=lambda _config, _band, targets: METHODS[method].make(size, targets),
        prepare=prepare,
    )


def score(jury: Jury, trained: Trained, trigger: str, place: int) -> float:
    """Mean identity of the subject's pictures, drawn with what was trained in the weights."""
    deltas = {name: Factors(delta, torch.eye(delta.shape[1])) for name, delta in trained.deltas.items()}
    merged = MergedWeights(jury.base, list(deltas), deltas.__getitem__)
    with words(jury.base, {trigger: trained.embeddings}), merged.present():
        try:
            return fmean(seen.identity for seen in jury.singles([place]).seen)
        except Diverged:
            return 0.0
