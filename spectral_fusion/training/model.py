"""A base under training: new words and adapters on it, everything else frozen, and its loss."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache

import torch
from peft import PeftConfig
from torch import Tensor, nn

from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.base.attach import adapter_name, detach_adapter, fill, refuse_fused
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.interface import Base
from spectral_fusion.concept import Concept
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band, Triplets
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.data import Example
from spectral_fusion.training.embeddings import first_embeddings, trainable_rows
from spectral_fusion.training.loss import masked_mse
from spectral_fusion.training.randomness import generator

MakeAdapter = Callable[[ResolvedConfig, Band, list[str]], PeftConfig]
"""Makes PEFT settings for target modules: of a spectral adapter, or of one to compare with."""


class TrainingModel:
    """What the loop trains: named parameters, and the loss of examples as a function of them."""

    def __init__(self, base: Base, config: ResolvedConfig):
        self.base, self.config = base, config
        self._cached_condition = lru_cache(maxsize=256)(self._read)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters, `<part>.<name>`, token embeddings among them, in a fixed order."""
        return {
            f"{part}.{name}": parameter
            for part in sorted(self.base.parts)
            for name, parameter in self.base.parts[part].named_parameters()
            if parameter.requires_grad
        }

    def losses(self, examples: Sequence[Example], *, min_snr_gamma: float = 0.0) -> Tensor:
        """Loss of each example, (batch,), in their order; those of one shape and length of text go together."""
        groups = defaultdict(list)
        lengths = self.base.prompt_chunks([example.caption for example in examples])
        for place, (example, length) in enumerate(zip(examples, lengths, strict=True)):
            groups[example.noisy.shape, length].append(place)
        parts = [self._losses_of_one_shape([examples[p] for p in places], min_snr_gamma) for places in groups.values()]
        order = torch.tensor([place for places in groups.values() for place in places])
        return torch.cat(parts)[order.argsort().to(parts[0].device)]

    def _losses_of_one_shape(self, examples: list[Example], gamma: float) -> Tensor:
        base, device = self.base, self.base.device
        noisy = torch.stack([example.noisy for example in examples]).to(device)
        target = torch.stack([example.target for example in examples]).to(device)
        times = torch.tensor([example.time for example in examples], device=device)
        frames, size = [example.frame for example in examples], (noisy.shape[-2], noisy.shape[-1])
        with base.autocast(self.config.precision):
            condition = base.framed(self._condition([example.caption for example in examples]), frames, size)
            prediction = base.predict(noisy, times, condition)
        loss = masked_mse(prediction, target, _stack_masks(examples, device))
        return loss * base.loss_weights(times, gamma)

    def _condition(self, captions: list[str]) -> Condition:
        if self.config.cache_text:
            return Condition.cat([self._cached_condition(caption) for caption in captions]).to(self.base.device)
        return self.base.condition(captions)

    @torch.no_grad()  # an encoder that computes its activations again asks for gradients, and their graph serves once
    def _read(self, caption: str) -> Condition:
        return self.base.condition([caption])


@contextmanager
def training_model(
    base: Base,
    config: ResolvedConfig,
    band: Band,
    *,
    adapter: MakeAdapter | None = None,
    bases: Mapping[str, Triplets] | None = None,
    start: Concept | None = None,
) -> Iterator[TrainingModel]:
    """Prepare a base for training; afterwards it is, bit for bit, as it was.

    Args:
        adapter: None for a spectral adapter.
        bases: the band of each target layer, decomposed before the base was cast; None: of the weights as they are.

        start: a concept of the same layers, band and mode to go on from; None: from nothing.

    Raises:
        InputError: the base carries concepts or adapters, the band does not fit a layer, `target` matches none, or
            the trigger cannot be used.
    """
    check_untouched(base)
    models = [*base.frozen, *base.parts.values()]
    # By name: tokens that come and go replace the embedding's parameter.
    grads = [{name: parameter.requires_grad for name, parameter in model.named_parameters()} for model in models]
    modes = {module: module.training for model in models for module in model.modules()}
    base.add_words({config.trigger: first_embeddings(base, config) if start is None else start.embeddings})
    try:
        for model in models:
            model.requires_grad_(False).eval()
        _add_adapters(base, config, band, adapter or spectral_adapter, bases)
        if start is not None:
            fill(base, start)
        base.settle()
        checkpointing = base.gradient_checkpointing() if config.gradient_checkpointing else nullcontext()
        shape = base.latent_shape(config.resolution, config.resolution)[1:]
        attention = base.quick_attention(config.precision, shape)
        with trainable_rows(base, config), checkpointing, attention:
            yield TrainingModel(base, config)
    finally:
        _remove(base, config)
        for model, flags in zip(models, grads, strict=True):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(flags[name])
        for module, mode in modes.items():
            module.training = mode


def check_untouched(base: Base) -> None:
    """Raises InputError where the base carries concepts or adapters: it could not be told what was trained."""
    refuse_fused(base)
    models = [*base.frozen, *base.parts.values()]
    if taken := [name for model in models for name in getattr(model, "peft_config", {})]:
        raise InputError(f"the base carries the adapters {', '.join(sorted(set(taken)))}; detach them before training")


def target_layers(base: Base, config: ResolvedConfig) -> dict[str, nn.Module]:
    """The layers to adapt, `<part>.<path>`: those whose name ends in a target, in the parts that learn.

    None whose path leads through one of `exclude_modules`, a whole name or several joined by dots.

    Raises:
        InputError: there are none.
    """
    endings = tuple(f".{target}" for target in config.target)
    found = {
        name: layer
        for name, layer in base.layers().items()
        if config.learning_rate_of(name.partition(".")[0]) > 0
        and name.endswith(endings)
        and not any(f".{block}." in f".{name}." for block in config.exclude_modules)
    }
    if not found:
        left_out = f" outside of {' '.join(config.exclude_modules)}" if config.exclude_modules else ""
        raise InputError(f"target {' '.join(config.target)} matches no layer{left_out}; give endings such as to_k to_v")
    return found


def spectral_adapter(config: ResolvedConfig, band: Band, targets: list[str]) -> SpectralConfig:
    """The adapter that concepts are made of."""
    return SpectralConfig(
        r=band.rank, band=band.index, side=band.side, mode=config.mode, train_s=config.train_s, target_modules=targets
    )


def _add_adapters(
    base: Base, config: ResolvedConfig, band: Band, adapter: MakeAdapter, bases: Mapping[str, Triplets] | None
) -> None:
    names = target_layers(base, config)
    with torch.random.fork_rng(devices=[]):  # PEFT draws the first matrices of a LoRA from the global generator
        torch.default_generator.set_state(generator(config.seed, config.name, "adapter").get_state())
        for part in sorted(base.parts):
            if targets := [name.partition(".")[2] for name in names if name.startswith(f"{part}.")]:
                settings = adapter(config, band, targets)
                if bases and isinstance(settings, SpectralConfig):
                    settings.init_basis = {target: bases[f"{part}.{target}"] for target in targets}
                base.parts[part].add_adapter(settings, adapter_name(config.name))
    _train_in_float32(base)


def _train_in_float32(base: Base) -> None:
    """Adapters of other kinds take the base's type, in which an optimizer's small numbers underflow."""
    for model in base.parts.values():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.float()


def _remove(base: Base, config: ResolvedConfig) -> None:
    """Take off whatever was put on before something failed, or all of it at the end."""
    own = adapter_name(config.name)
    if any(own in getattr(model, "peft_config", {}) for model in base.parts.values()):
        detach_adapter(base, own, config.trigger)
    elif config.trigger in base.triggers():
        base.remove_words([config.trigger])


def _stack_masks(examples: list[Example], device: torch.device) -> Tensor | None:
    if all(example.mask is None for example in examples):
        return None
    whole = torch.ones(1, *examples[0].noisy.shape[1:])
    return torch.stack([whole if example.mask is None else example.mask for example in examples]).to(device)
