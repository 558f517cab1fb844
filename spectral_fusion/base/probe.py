"""Telling noise prediction from v-prediction by asking the model once, where a file does not say.

At no picture at all (latents of zero) with noise n, the noisy latents are sqrt(1 - a) n. A model that predicts noise
answers n at every timestep; one that predicts v answers sqrt(a) n, which fades to nothing at the last timesteps.
AUTOMATIC1111's web UI tells 2.x's two kinds apart by one call in a similar way.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from spectral_fusion.identify.identity import PredictionType

EARLY, LATE = 0.5, 0.01  # share of the picture's signal (alphas_cumprod) at the two timesteps that are asked for
SEED = 0


class Probe(NamedTuple):
    """How much of the noise a model answers with at two timesteps, and what that says; None where it says nothing."""

    early: float
    late: float
    type: PredictionType | None


@torch.no_grad()
def probe_prediction(
    predict: Callable[[Tensor, Tensor], Tensor],
    alphas_cumprod: Tensor,
    shape: tuple[int, int, int],
    device: torch.device | str = "cpu",
) -> Probe:
    """Ask a model of unknown prediction type, in one call of two samples.

    Args:
        predict: noisy latents (2, channels, height, width) and timesteps (2,) -> its answer.
        shape: channels, height, width of the latents.
    """
    times = torch.stack([(alphas_cumprod - share).abs().argmin() for share in (EARLY, LATE)]).to(device)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(SEED)).to(device).expand(2, -1, -1, -1)
    alphas = alphas_cumprod.to(device)[times][:, None, None, None]
    answer = predict((1 - alphas).sqrt() * noise, times).float()
    early, late = ((answer * noise).mean(dim=(1, 2, 3)) / noise.square().mean(dim=(1, 2, 3))).tolist()
    return Probe(early, late, _meaning(early, late))


def _meaning(early: float, late: float) -> PredictionType | None:
    """A model that does not answer with noise at half signal is no trained model of either kind."""
    if not 0.4 < early < 1.5:
        return None
    if late > 0.6 * early:
        return "epsilon"
    return "v_prediction" if abs(late) < 0.4 * early else None
