"""What a loaded base predicts: as the user says, as its file says, or as the model itself answers when asked."""

import logging
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from diffusers import DDPMScheduler
from torch import nn

from spectral_fusion.base.precision import in_float32
from spectral_fusion.base.probe import probe_prediction
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.identify.identity import Prediction, PredictionType

logger = logging.getLogger(__name__)

PROBE_SIDE = 32  # latents of the probe: noise looks the same at any size
WORDS = {"epsilon": "noise (epsilon)", "v_prediction": "v"}
SD2_PIXELS = {"epsilon": 512, "v_prediction": 768}


def settle_prediction(
    base: StableDiffusion, said: Prediction | None = None, wanted: PredictionType | None = None
) -> None:
    """Set the prediction type of a base that was just loaded.

    Args:
        said: what a single file says; None for a folder, whose own scheduler says it.
        wanted: what the user says.
    """
    if wanted is not None:
        _set(base, wanted)
    elif said is not None and not said.source:
        _ask(base, said.type)


def _ask(base: StableDiffusion, usual: PredictionType) -> None:
    """Ask a model whose file is silent; an answer that tells nothing leaves the family's usual type."""
    side = min(PROBE_SIDE, base.latent_shape(base.size, base.size)[1])
    with ExitStack() as quick, torch.no_grad():
        for text in base.texts.values():
            quick.enter_context(_quick(text.encoder))
        condition = base.condition(["", ""])
    schedule = DDPMScheduler.from_config(base.pipeline.scheduler.config)
    channels = base.latent_shape(base.size, base.size)[0]
    with _quick(base.unet):
        found = probe_prediction(
            lambda noisy, times: base.predict(noisy, times, condition),
            schedule.alphas_cumprod,
            (channels, side, side),
            base.device,
        )
    told = "its file does not say what it predicts"
    answers = f"asked, it answers with {found.early:.2f} of the noise at half signal and {found.late:.2f} near none"
    if found.type is None:
        logger.info("%s, and %s, which tells nothing: taken for %s", told, answers, WORDS[usual])
        return
    level = logging.INFO if found.type == usual else logging.WARNING
    logger.log(level, "%s; %s: it predicts %s (--prediction-type overrides this)", told, answers, WORDS[found.type])
    _set(base, found.type)


def _quick(model: nn.Module) -> AbstractContextManager[None]:
    """In float32 on a CPU, which is twenty times as slow in float16: XL would take minutes to answer."""
    weight = next(model.parameters())
    return in_float32(model) if weight.device.type == "cpu" and weight.dtype == torch.float16 else nullcontext()


def _set(base: StableDiffusion, kind: PredictionType) -> None:
    scheduler = base.pipeline.scheduler
    if scheduler.config.prediction_type == kind:
        return
    zero_snr = {} if kind == "v_prediction" else {"rescale_betas_zero_snr": False}
    base.pipeline.scheduler = type(scheduler).from_config(scheduler.config, prediction_type=kind, **zero_snr)
    base.__dict__.pop("noise_schedule", None)  # computed from the old one
    if base.unet.config.cross_attention_dim == 1024 and base.unet.config.sample_size in (64, 96):
        base.unet.register_to_config(sample_size=SD2_PIXELS[kind] // 8)
