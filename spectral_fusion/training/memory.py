"""The memory that a training will take, before anything is loaded.

At its most a training holds, on the device that it runs on,

    weights + bands + trained * (2 + states + average) + merged + work + spare

weights: of each model that is there, its numbers times the bytes of its type.
bands: float32 `U, S, V` of each adapted layer, `(out + in + 1) * rank * 4` bytes.
trained: the adapters in float32, `(out + in) * rank * 4` where additive, once as parameters and once as they began.
states: of the optimizer, in parts of `trained`: AdamW 2, in 8 bits 0.5, Prodigy 4; the moving average is one more.
merged: the adapted weights with other concepts in them, where the new one is trained beside others.
work: gradients and activations in a step; the autoencoder's and the denoiser's without gradients elsewhere. They are
    counted in a run on the meta device, see `base.traced`, at the training's picture size, batch and checkpointing.
spare: what the device's own libraries take, and what an allocator cannot use. On a CPU the C library keeps freed blocks
    of up to 32 MB in its heap, in pieces that the next ones do not always fit into: a quarter of a step's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spectral_fusion.base.attach import spectral_layers
from spectral_fusion.base.interface import DTYPES, Base
from spectral_fusion.base.outline import blank_condition
from spectral_fusion.base.quantise import is_chosen, stored_bytes
from spectral_fusion.base.quiet import quietly
from spectral_fusion.base.traced import AsOnDevice, LiveBytes, backward, bytes_of, tensors_of
from spectral_fusion.spectral import Band, as_matrix
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.model import spectral_adapter, target_layers

Kind = Literal["gpu", "cpu"]
GB = 1e9
STATES = {"adamw": 2.0, "adamw8bit": 0.5, "prodigy": 4.0}
SPARE = {"gpu": (0.7 * GB, 0.05), "cpu": (0.55 * GB, 0.02)}  # bytes, and a share of the rest
HEAP = 0.25  # of a step's activations, see `docs/results/memory.md`
DECOMPOSED = 3  # copies of the largest layer in float32 while its band is found
ADAPTER = "predicted"


Traces = dict[tuple, int]
"""Bytes of work that was counted, by what it was."""


@dataclass(frozen=True)
class Prediction:
    """Bytes on the device in each phase of a training, by what takes them; `ram`: on the CPU beside a GPU."""

    phases: Mapping[str, Mapping[str, int]]
    ram: int = 0

    @property
    def worst(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=self.of)

    @property
    def peak(self) -> int:
        return self.of(self.worst)

    def of(self, phase: str) -> int:
        return sum(self.phases[phase].values())


def predict(
    base: Base,
    config: ResolvedConfig,
    *,
    kind: Kind,
    stored: torch.dtype = torch.float16,
    others: bool = False,
    traces: Traces | None = None,
) -> Prediction:
    """The memory of a training with these settings, by the formula above.

    Args:
        base: an outline, see `base.outline`; it is used up.
        kind: of the device that trains.
        stored: the type of the base's files.
        others: whether the concept is trained beside others.
        traces: work of the same base and precision that was counted already, to be shared and added to.
    """
    low, precision = config.low_memory, DTYPES[config.precision]
    adapted = [layer.weight for layer in target_layers(base, config).values()]
    bands = sum((sum(as_matrix(weight).shape) + 1) * config.rank * 4 for weight in adapted)
    models = [*base.parts.values(), *base.frozen]
    files = sum(bytes_of(model, stored) for model in models)
    loaded = files if low else sum(bytes_of(model, torch.float32) for model in models)
    found = 4 * DECOMPOSED * max(weight.numel() for weight in adapted)
    phases = {"opening": {"weights": loaded, "bands": bands, "decomposition": found}}
    if kind == "cpu":
        phases["opening"]["files, mapped"] = files
    base.cast(precision)
    learning = {name: model for name, model in base.parts.items() if config.learns(name)}
    on_card = kind == "gpu" and low
    held = {"weights": sum(map(bytes_of, learning.values() if on_card else models)), "bands": bands}
    if on_card and config.offload_blocks:
        held["weights"] -= bytes_of(base.denoiser) - _at_once(base.denoiser)
    if config.quantize is not None:
        held["weights"] -= _saved(base.denoiser, config.quantize)
    merged = sum(weight.numel() for weight in adapted) * precision.itemsize
    work = _works(base, config, learning, {} if traces is None else traces)
    trained = work.pop("trained")
    states = {
        "adapters": 2 * trained,
        "optimizer": int(STATES[config.optimizer] * trained),
        "moving average": trained if config.ema_decay else 0,
        "merged weights": merged if others and config.quantize is None else 0,
    }
    if config.quantize is not None:  # one layer's weight at a time is unpacked
        work["step"] += precision.itemsize * max(weight.numel() for weight in adapted)
    gradients = min(trained, work["step"])
    phases["training"] = held | states | {"gradients": gradients, "activations": work["step"] - gradients}
    if on_card:
        del phases["opening"]
        phases["drawing"] = held | states | {"activations": work["draw"]}
    else:
        phases["encoding"] = held | states | {"activations": work["encode"]}
        phases["drawing"] = held | states | {"activations": max(work["draw"], work["decode"])}
    spared = {name: _with_spare(phase, kind) for name, phase in phases.items()}
    if kind == "cpu":
        spared["training"]["spare"] += int(HEAP * work["step"])
    return Prediction(spared, ram=loaded + files if on_card else 0)


def _works(base: Base, config: ResolvedConfig, learning: Mapping[str, nn.Module], traces: Traces) -> dict[str, int]:
    """The most bytes of each kind of work, beyond what is held; and those of the trained numbers."""
    size = (config.resolution, config.batch_size // config.gradient_accumulation)
    makes: dict[tuple, Callable[[], int]] = {
        ("trained",): lambda: 4 * sum(p.numel() for m in learning.values() for p in m.parameters() if p.requires_grad),
        ("step", *size, config.gradient_checkpointing): lambda: _step(base, config, learning),
        ("encode", config.resolution): lambda: _encode(base, config),
        ("draw", *size): lambda: _draw(base, config),
        ("decode", config.resolution): lambda: _decode(base, config),
    }
    if missing := [key for key in makes if key not in traces]:
        with _adapted(base, config):
            traces |= {key: makes[key]() for key in missing}
    return {key[0]: traces[key] for key in makes}


def _saved(model: nn.Module, scheme: str) -> int:
    """Bytes that quantising takes off a model."""
    chosen = [layer for path, layer in model.named_modules() if isinstance(layer, nn.Linear) and is_chosen(path, layer)]
    return sum(layer.weight.numel() * layer.weight.element_size() - stored_bytes(layer, scheme) for layer in chosen)


def _at_once(model: nn.Module) -> int:
    """Bytes of a model whose layers come and go that a step holds: what stands in no row of blocks, and one block."""
    blocks = [bytes_of(block) for row in model.children() if isinstance(row, nn.ModuleList) for block in row]
    return bytes_of(model) - sum(blocks) + max(blocks, default=0)


def _with_spare(phase: dict[str, int], kind: Kind) -> dict[str, int]:
    fixed, share = SPARE[kind]
    kept = {name: size for name, size in phase.items() if size}
    return kept | {"spare": int(fixed + share * sum(kept.values()))}


@contextmanager
def _adapted(base: Base, config: ResolvedConfig) -> Iterator[None]:
    """Within the `with` block the outline carries the adapters of a training, and nothing else learns."""
    names = target_layers(base, config)
    for model in [*base.parts.values(), *base.frozen]:
        model.requires_grad_(False)
    for part, model in base.parts.items():
        if targets := [name.partition(".")[2] for name in names if name.startswith(f"{part}.")]:
            adapter = spectral_adapter(config, Band(0, config.rank, config.band_side), targets)
            adapter.init_basis = False
            model.add_adapter(adapter, ADAPTER)
            for layer in spectral_layers(model, ADAPTER).values():
                layer.set_adapter([ADAPTER])
    with base.gradient_checkpointing() if config.gradient_checkpointing else nullcontext():
        yield


def _traced(base: Base, dtype: torch.dtype, work: Callable[[], object]) -> int:
    """The most bytes that some work holds beyond the models."""
    count = LiveBytes(tensors_of(*base.parts.values(), *base.frozen))
    with AsOnDevice(dtype), count:
        work()
    return count.peak


def _step(base: Base, config: ResolvedConfig, learning: Mapping[str, nn.Module]) -> int:
    """Forward and backward of one part of a batch: a picture of each source at each of its places."""
    sources = 1 + config.prior_preservation + (config.distillation_prompts > 0)
    count = max(1, config.batch_size // config.gradient_accumulation) * sources
    dtype = DTYPES[config.precision]

    def work() -> None:
        words = [_read(model, count) for name, model in learning.items() if name.startswith("text_encoder")]
        noisy, times, told = _problem(base, config, count, dtype)
        if words:
            told.embeds.requires_grad_()
        loss = base.predict(noisy, times, told).float().square().mean()
        for word in words:
            loss = loss + word.float().mean()
        backward(loss)

    return _traced(base, dtype, work)


def _read(encoder: nn.Module, count: int) -> Tensor:
    """What an encoder makes of prompts whose embeddings learn."""
    length = encoder.config.max_position_embeddings
    handle = encoder.get_input_embeddings().register_forward_hook(lambda _, __, out: out.requires_grad_())
    try:
        ids = torch.zeros(count, length, dtype=torch.long, device="meta")
        return encoder(ids, output_hidden_states=True).hidden_states[-1]
    finally:
        handle.remove()


def _problem(base: Base, config: ResolvedConfig, count: int, dtype: torch.dtype) -> tuple:
    shape = base.latent_shape(config.resolution, config.resolution)
    noisy = torch.empty(count, *shape, device="meta")
    return noisy, torch.full((count,), 500.0, device="meta"), blank_condition(base, count, dtype)


@torch.no_grad()
def _encode(base: Base, config: ResolvedConfig) -> int:
    vae = base.frozen[0]
    dtype = torch.float32 if base.family in ("sd", "sdxl") else next(vae.parameters()).dtype  # as `Base.encode`
    extra = bytes_of(vae, dtype) - bytes_of(vae)
    pixels = torch.empty(1, 3, config.resolution, config.resolution, device="meta", dtype=dtype)
    with quietly():
        vae.to(dtype)
        try:
            return extra + _traced(base, dtype, lambda: vae.encode(pixels))
        finally:
            vae.to(DTYPES[config.precision])


@torch.no_grad()
def _draw(base: Base, config: ResolvedConfig) -> int:
    """Denoising with guidance, of a batch where the base's own predictions are kept."""
    count, dtype = 2 * (config.batch_size if config.distillation_prompts else 1), DTYPES[config.precision]
    return _traced(base, dtype, lambda: base.predict(*_problem(base, config, count, dtype)))


@torch.no_grad()
def _decode(base: Base, config: ResolvedConfig) -> int:
    vae = base.frozen[0]
    kind = next(vae.parameters()).dtype
    channels, height, width = base.latent_shape(config.resolution, config.resolution)
    packed = channels // vae.config.latent_channels  # of FLUX.2, whose latents are squares of four
    side = int(packed**0.5)
    latents = torch.empty(1, channels // packed, height * side, width * side, device="meta", dtype=kind)
    return _traced(base, kind, lambda: vae.decode(latents))
