"""A concept on a base as a PEFT adapter of its name, and off again; collecting a concept that was trained there."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from spectral_fusion.adapter import SpectralConfig, SpectralLayer
from spectral_fusion.adapter.kinds import matrix_shape
from spectral_fusion.base.bundled import BUNDLED
from spectral_fusion.base.interface import Base
from spectral_fusion.base.layers import plain_name
from spectral_fusion.concept.file import BASIS, Concept, LayerTensors
from spectral_fusion.concept.fingerprint import same_weight
from spectral_fusion.concept.metadata import check_weight
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band, Triplets, as_matrix

CONTAINERS = (nn.ParameterDict(), nn.ModuleDict())  # PEFT keeps what belongs to an adapter as their attribute


def attach(base: Base, concept: Concept, weight: float = 1.0) -> None:
    """Put a concept on a base: its delta at `weight`, its tokens. Adapters that are on stay on and as they are.

    Everything is checked before anything is touched, and `detach` is the inverse.

    Raises:
        InputError: the concept does not fit the base, its name or trigger is taken, or weights are merged or fused.
    """
    check_weight(concept, weight)
    check_fits(base, concept)
    base.check_words(concept.trigger, concept.embeddings)
    try:
        for part, model in base.parts.items():
            if any(name.startswith(f"{part}.") for name in concept.layers):
                _attach_part(part, model, concept, weight)
        base.add_words({concept.trigger: concept.embeddings})
        base.settle()
    except BaseException:  # no memory in the second part, or an interruption: the first part's is taken off
        if any(adapter_name(concept.name) in getattr(model, "peft_config", {}) for model in base.parts.values()):
            detach(base, concept)
        raise


def _attach_part(part: str, model: nn.Module, concept: Concept, weight: float) -> None:
    own, active = adapter_name(concept.name), active_adapters(model)
    paths = [name.partition(".")[2] for name in concept.layers if name.startswith(f"{part}.")]
    with _same_requires_grad(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several are the point
        model.add_adapter(_config(concept, paths), own)
        model.set_adapter([*active, own])
        _fill(model, concept, part)
        for layer in spectral_layers(model, own).values():
            layer.set_scale(own, weight)


def detach(base: Base, concept: Concept) -> None:
    """Take a concept and its tokens off a base, and the wrapping off layers that no adapter needs any more.

    Raises:
        InputError: the concept is not attached, or merged into the weights.
    """
    detach_adapter(base, adapter_name(concept.name), concept.trigger)


def detach_adapter(base: Base, name: str, trigger: str) -> None:
    """`detach` for an adapter that is no concept yet, such as one whose training was broken off."""
    carriers = [model for model in base.parts.values() if name in getattr(model, "peft_config", {})]
    if not carriers:
        raise InputError(f"concept {name!r} is not attached to this base; nothing to detach")
    for model in carriers:
        _refuse_merged(model)
    for model in carriers:
        with _same_requires_grad(model):
            if others := [other for other in active_adapters(model) if other != name]:
                model.set_adapter(others)
            if hasattr(model, "delete_adapters"):  # diffusers
                model.delete_adapters(name)
            else:
                model.delete_adapter(name)
            _unwrap(model)
    if trigger in base.triggers():
        base.remove_words([trigger])


def collect(
    base: Base,
    adapter: str,
    *,
    name: str,
    trigger: str,
    class_word: str,
    base_name: str = "",
    training: dict[str, Any] | None = None,
) -> Concept:
    """The concept that was trained as adapter `adapter` and trigger `trigger` on a base.

    Its tensors are copies in float32 on the CPU.

    Raises:
        InputError: no such adapter or trigger is on the base, or a tensor is not finite.
    """
    found = {
        f"{part}.{path}": module
        for part, model in base.parts.items()
        for path, module in spectral_layers(model, adapter).items()
    }
    if not found:
        raise InputError(f"no spectral adapter {adapter!r} is on this base; add one before collecting")
    if base.texts and trigger not in base.triggers():
        raise InputError(f"trigger {trigger} is not in this base; add its tokens before collecting")
    config = next(m.peft_config[adapter] for m in base.parts.values() if adapter in getattr(m, "peft_config", {}))
    layers = {plain_name(key): module for key, module in found.items()}
    _refuse_patterns(layers, adapter, config)
    plain = {key: module.get_base_layer() for key, module in layers.items()}
    return Concept(
        name=name,
        trigger=trigger,
        class_word=class_word,
        band=Band(config.band, config.r, config.side),
        mode=config.mode,
        alpha=config.alpha,
        base=base.fingerprint,
        family=base.family,
        base_name=base_name,
        text_parts=tuple(base.texts),
        directions=min(min(matrix_shape(layer)) for layer in plain.values()),
        fingerprints={key: base.layer_fingerprint(key, layer) for key, layer in plain.items()},
        kernels={key: layer.kernel_size for key, layer in plain.items() if isinstance(layer, nn.Conv2d)},
        training=training or {},
        layers={key: _tensors(module, adapter) for key, module in layers.items()},
        embeddings={
            part: text.embedding.weight[text.token_ids(trigger)].detach().float().cpu().clone()
            for part, text in base.texts.items()
        },
    )


def _refuse_patterns(layers: dict[str, SpectralLayer], adapter: str, config: SpectralConfig) -> None:
    """A concept has one rank and one alpha: its band is claimed, and its delta scaled, by these."""
    for key, module in layers.items():
        if (module.r[adapter], module.alpha[adapter]) != (config.r, config.alpha):
            raise InputError(
                f"{key!r} has rank {module.r[adapter]} and alpha {module.alpha[adapter]:g}, the adapter {adapter!r} "
                f"{config.r} and {config.alpha:g}; a concept has one of each, leave out rank_pattern and alpha_pattern"
            )


def check_fits(base: Base, *concepts: Concept) -> dict[str, nn.Module]:
    """Check concepts against a base and return the base's layers that they adapt, by the concepts' names for them.

    Raises:
        InputError: a layer is missing, of another shape or another base's; a name is in use; weights are merged.
    """
    check_family(base, *concepts)
    refuse_fused(base)
    for model in base.parts.values():
        _refuse_merged(model)
        for concept in concepts:
            if adapter_name(concept.name) in getattr(model, "peft_config", {}):
                raise InputError(f"an adapter named {concept.name!r} is already on this base; detach it first")
    present = base.layers()
    adapted: dict[str, str] = {}
    for concept in concepts:
        for name in concept.layers:
            if name not in adapted:
                _check_shape(concept, name, present)
                adapted[name] = base.layer_fingerprint(name, present[name])
            _check_fingerprint(concept, name, adapted[name], base)
    return {name: present[name] for name in adapted}


def _check_shape(concept: Concept, name: str, present: dict[str, nn.Module]) -> None:
    if name not in present:
        raise InputError(f"concept {concept.name!r} adapts {name!r}, which this base lacks; {_advice(concept)}")
    layer, basis = present[name], concept.layers[name].basis
    needed = (len(basis.U), len(basis.V), *concept.kernels.get(name, ()))
    got = (*matrix_shape(layer), *(layer.kernel_size if isinstance(layer, nn.Conv2d) else ()))
    if needed != got:
        raise InputError(
            f"concept {concept.name!r} needs {name!r} of shape {needed}, this base has {got}; {_advice(concept)}"
        )


def _check_fingerprint(concept: Concept, name: str, found: str, base: Base) -> None:
    if not same_weight(concept.fingerprints[name], found):
        trained_on = f"{concept.base} {concept.base_name}".rstrip()
        raise InputError(
            f"concept {concept.name!r} was trained on base {trained_on}, this is base {base.fingerprint} "
            f"(they differ in {name!r}); {_advice(concept)}"
        )


def check_family(base: Base, *concepts: Concept) -> None:
    """Raises InputError where a concept was trained on another family of bases."""
    for concept in concepts:
        if concept.family != base.family:
            raise InputError(
                f"concept {concept.name!r} was trained on a base of family {concept.family}, this is {base.family}; "
                + _advice(concept)
            )


def refuse_fused(base: Base) -> None:
    """Raises InputError where concepts are fused into the weights: no band or fingerprint is the base's then."""
    if base.fused:
        raise InputError(f"concepts {', '.join(base.fused)} are fused into this base; undo that fusion first")


def smallest_directions(weights: Iterable[torch.Tensor]) -> int:
    """Singular directions of the smallest of these weights: where the bands of a concept on all of them end."""
    return min(min(as_matrix(weight).shape) for weight in weights)


def adapter_name(concept: str) -> str:
    """What the adapter of a concept is called: as the concept, or `train_` where torch's containers use the name."""
    return f"{concept}_" if any(hasattr(container, concept) for container in CONTAINERS) else concept


def active_adapters(model: nn.Module) -> list[str]:
    """Names of the adapters that are active on a model, in order; empty where there are none."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    return list(dict.fromkeys(name for layer in layers for name in layer.active_adapters))


def _advice(concept: Concept) -> str:
    bundled = BUNDLED.get(concept.base_name)
    if bundled and bundled.fingerprint != concept.base:
        return f"{bundled.name} has been trained further since: train {concept.name!r} again on its photos"
    return f"load the base of {concept.name!r}, or train it again on this one"


def _config(concept: Concept, paths: list[str]) -> SpectralConfig:
    return SpectralConfig(
        r=concept.band.rank,
        band=concept.band.index,
        side=concept.band.side,
        mode=concept.mode,
        train_s=any("c" in layer.trained for layer in concept.layers.values()),
        alpha=concept.alpha,
        target_modules=paths,
        init_basis=False,
    )


@torch.no_grad()
def fill(base: Base, concept: Concept) -> None:
    """Copy a concept's tensors into the adapter of its name that is on the base."""
    for part, model in base.parts.items():
        _fill(model, concept, part)


def _fill(model: nn.Module, concept: Concept, part: str) -> None:
    own = adapter_name(concept.name)
    for path, module in spectral_layers(model, own).items():
        module.set_tensors(own, concept.layers[plain_name(f"{part}.{path}")].tensors())


def spectral_layers(model: nn.Module, adapter: str) -> dict[str, SpectralLayer]:
    """The layers that carry a spectral adapter, by their path in the model."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, SpectralLayer) and adapter in module.r
    }


def _tensors(module: SpectralLayer, adapter: str) -> LayerTensors:
    copies = {part: tensor.detach().float().cpu().clone() for part, tensor in module.tensors(adapter).items()}
    return LayerTensors(Triplets(*(copies.pop(part) for part in BASIS)), copies)


def _refuse_merged(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and module.merged:
            names = ", ".join(module.merged_adapters)
            raise InputError(f"adapters {names} are merged into the weight of {path!r}; unmerge them first")


def _unwrap(model: nn.Module) -> None:
    """Put the plain layer back wherever no adapter is left round it."""
    for path, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer) and not module._get_available_adapters():
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, module.base_layer)


@contextmanager
def _same_requires_grad(model: nn.Module) -> Iterator[None]:
    """Undo what PEFT does to `requires_grad` when adapters come, go and switch; new parameters end up frozen."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for parameter in model.parameters():
            parameter.requires_grad_(before.get(parameter, False))
