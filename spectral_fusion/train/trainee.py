"""A pipeline under training: new tokens and a spectral adapter on it, everything else frozen, and its loss."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from diffusers import StableDiffusionPipeline
from peft import PeftConfig
from torch import Tensor, nn

from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.concept.attach import adapter_name, detach_adapter, refuse_fused
from spectral_fusion.concept.fingerprint import pipeline_layers
from spectral_fusion.errors import InputError
from spectral_fusion.pipeline.tokens import add_tokens, remove_tokens, token_ids
from spectral_fusion.spectral import Band, Triplets
from spectral_fusion.train.config import TrainConfig
from spectral_fusion.train.data import Example
from spectral_fusion.train.embeddings import first_embeddings, trainable_rows
from spectral_fusion.train.loss import masked_mse, min_snr_weights, noise_scheduler

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Trainee:
    """What the loop trains: named parameters, and the loss of samples as a function of them."""

    def __init__(self, pipeline: StableDiffusionPipeline, config: TrainConfig):
        self.pipeline, self.config = pipeline, config
        self.scheduler = noise_scheduler(pipeline.scheduler)
        self._cached_text = lru_cache(maxsize=256)(lambda caption: encode_captions(pipeline, [caption]))

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters, `text_encoder.…` with the token embeddings and `unet.…`, in a fixed order."""
        return {
            f"{part}.{name}": parameter
            for part in ("text_encoder", "unet")
            for name, parameter in getattr(self.pipeline, part).named_parameters()
            if parameter.requires_grad
        }

    def losses(self, samples: Sequence[Example], *, min_snr_gamma: float = 0.0) -> Tensor:
        """Loss of each sample, (batch,), in the order of `samples`; pictures of one shape go through together."""
        shapes = defaultdict(list)
        for place, sample in enumerate(samples):
            shapes[sample.latents.shape].append(place)
        parts = [self._losses_of_one_shape([samples[p] for p in places], min_snr_gamma) for places in shapes.values()]
        order = torch.tensor([place for places in shapes.values() for place in places])
        return torch.cat(parts)[order.argsort().to(parts[0].device)]

    def _losses_of_one_shape(self, samples: list[Example], gamma: float) -> Tensor:
        device, unet = self.pipeline.device, self.pipeline.unet
        problems = [sample.problem(self.scheduler) for sample in samples]
        noisy, target = (torch.stack(tensors).to(device) for tensors in zip(*problems, strict=True))
        timesteps = torch.tensor([sample.timestep for sample in samples], device=device)
        with autocast(self.pipeline, self.config):
            text = self._text([sample.caption for sample in samples])
            prediction = unet(noisy.to(unet.dtype), timesteps, text, return_dict=False)[0]
        loss = masked_mse(prediction, target, _stack_masks(samples, device))
        return loss * min_snr_weights(self.scheduler, timesteps, gamma)

    def _text(self, captions: list[str]) -> Tensor:
        """(batch, tokens, width): what the UNet attends to."""
        if self.config.cache_text:
            return torch.cat([self._cached_text(caption) for caption in captions])
        return encode_captions(self.pipeline, captions)


def autocast(pipeline: StableDiffusionPipeline, config: TrainConfig) -> torch.autocast:
    """The precision that the settings ask for, on the pipeline's device."""
    dtype = DTYPES[config.precision]
    return torch.autocast(pipeline.device.type, dtype=dtype, enabled=dtype != torch.float32)


def encode_captions(pipeline: StableDiffusionPipeline, captions: list[str]) -> Tensor:
    """(batch, tokens, width): what the UNet attends to. Captions are plain text, cut at the encoder's length."""
    tokenizer = pipeline.tokenizer
    expanded = pipeline.maybe_convert_prompt(captions, tokenizer)  # a trigger of several vectors in full
    ids = tokenizer(
        expanded, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    return pipeline.text_encoder(ids.to(pipeline.device))[0]


@contextmanager
def trainee(
    pipeline: StableDiffusionPipeline,
    config: TrainConfig,
    band: Band,
    *,
    adapter: Callable[[TrainConfig, Band, list[str]], PeftConfig] | None = None,
    bases: Mapping[str, Triplets] | None = None,
) -> Iterator[Trainee]:
    """Prepare a pipeline for training; afterwards it is, bit for bit, as it was.

    Args:
        config: resolved settings.
        adapter: makes the PEFT settings for target modules; None for a spectral adapter.
        bases: the band of each target layer, decomposed before the base was cast; None: of the weights as they are.

    Raises:
        InputError: the pipeline carries concepts or adapters, the band does not fit a layer, `target` matches none, or
            the trigger cannot be used.
    """
    refuse_fused(pipeline)
    models = [pipeline.vae, pipeline.text_encoder, pipeline.unet]
    if taken := [name for model in models for name in getattr(model, "peft_config", {})]:
        raise InputError(
            f"the pipeline carries the adapters {', '.join(sorted(set(taken)))}; detach them before training"
        )
    # By name: tokens that come and go replace the embedding's parameter.
    grads = [{name: parameter.requires_grad for name, parameter in model.named_parameters()} for model in models]
    modes = {module: module.training for model in models for module in model.modules()}
    add_tokens(pipeline, config.trigger, first_embeddings(pipeline, config))
    try:
        for model in models:
            model.requires_grad_(False).eval()
        _add_adapters(pipeline, config, band, adapter or spectral_adapter, bases)
        with trainable_rows(pipeline, config), _gradient_checkpointing(pipeline, config):
            yield Trainee(pipeline, config)
    finally:
        _remove(pipeline, config)
        for model, flags in zip(models, grads, strict=True):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(flags[name])
        for module, mode in modes.items():
            module.training = mode


def target_layers(pipeline: StableDiffusionPipeline, config: TrainConfig) -> dict[str, nn.Module]:
    """The layers to adapt, `unet.…` and `text_encoder.…`: those whose name ends in a target, in the parts that learn.

    Raises:
        InputError: there are none.
    """
    learns = {"unet": config.learning_rate_unet > 0, "text_encoder": config.learning_rate_text_encoder > 0}
    endings = tuple(f".{target}" for target in config.target)
    found = {
        name: layer
        for name, layer in pipeline_layers(pipeline).items()
        if learns[name.partition(".")[0]] and name.endswith(endings)
    }
    if not found:
        raise InputError(f"target {' '.join(config.target)} matches no layer; give endings such as to_k to_v")
    return found


def spectral_adapter(config: TrainConfig, band: Band, targets: list[str]) -> SpectralConfig:
    """The adapter that concepts are made of."""
    return SpectralConfig(
        r=band.rank, band=band.index, side=band.side, mode=config.mode, train_s=config.train_s, target_modules=targets
    )


def _add_adapters(
    pipeline: StableDiffusionPipeline,
    config: TrainConfig,
    band: Band,
    adapter: Callable[[TrainConfig, Band, list[str]], PeftConfig],
    bases: Mapping[str, Triplets] | None,
) -> None:
    names = target_layers(pipeline, config)
    for part in ("text_encoder", "unet"):
        if targets := [name.partition(".")[2] for name in names if name.startswith(f"{part}.")]:
            settings = adapter(config, band, targets)
            if bases and isinstance(settings, SpectralConfig):
                settings.init_basis = {target: bases[f"{part}.{target}"] for target in targets}
            getattr(pipeline, part).add_adapter(settings, adapter_name(config.name))


def _remove(pipeline: StableDiffusionPipeline, config: TrainConfig) -> None:
    """Take off whatever was put on before something failed, or all of it at the end."""
    own = adapter_name(config.name)
    if any(own in getattr(model, "peft_config", {}) for model in (pipeline.text_encoder, pipeline.unet)):
        detach_adapter(pipeline, own, config.trigger)
    elif token_ids(pipeline, config.trigger):
        remove_tokens(pipeline, config.trigger)


@contextmanager
def _gradient_checkpointing(pipeline: StableDiffusionPipeline, config: TrainConfig) -> Iterator[None]:
    if not config.gradient_checkpointing:
        yield
        return
    pipeline.unet.enable_gradient_checkpointing()
    pipeline.text_encoder.activation_checkpointing_enable({"use_reentrant": False})
    pipeline.text_encoder.train()  # transformers recomputes in this mode only; CLIP has no dropout
    try:
        yield
    finally:
        pipeline.unet.disable_gradient_checkpointing()
        pipeline.text_encoder.activation_checkpointing_disable()


def _stack_masks(samples: list[Example], device: torch.device) -> Tensor | None:
    if all(sample.mask is None for sample in samples):
        return None
    whole = torch.ones(1, *samples[0].latents.shape[1:])
    return torch.stack([whole if sample.mask is None else sample.mask for sample in samples]).to(device)
