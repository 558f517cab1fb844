"""A model of unknown prediction type is asked once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spectral_fusion.base.probe import probe_prediction
from spectral_fusion.base.samplers import make_sampler
from tiny import sd1_scheduler, tiny_pipeline

ALPHAS = make_sampler(sd1_scheduler().config, "DDPM").alphas_cumprod


def model(kind: str, spread: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The best answer for pictures N(0, spread^2), in the given prediction type."""

    def predict(noisy: Tensor, times: Tensor) -> Tensor:
        alpha = ALPHAS[times][:, None, None, None]
        total = spread**2 * alpha + 1 - alpha
        noise, clean = (1 - alpha).sqrt() * noisy / total, spread**2 * alpha.sqrt() * noisy / total
        return noise if kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean

    return predict


@pytest.mark.parametrize("spread", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_either_kind_is_told_by_one_call(kind: str, spread: float) -> None:
    assert probe_prediction(model(kind, spread), ALPHAS, (4, 16, 16)).type == kind


def test_an_untrained_model_is_of_neither_kind() -> None:
    unet = tiny_pipeline().unet
    text = torch.zeros(2, 77, 64)
    found = probe_prediction(lambda noisy, times: unet(noisy, times, text).sample, ALPHAS, (4, 16, 16))
    assert found.type is None
    assert abs(found.early) < 0.4


@pytest.mark.parametrize("zero", [0.0, float("nan")])
def test_a_broken_model_is_of_neither_kind(zero: float) -> None:
    assert probe_prediction(lambda noisy, times: noisy * zero, ALPHAS, (4, 8, 8)).type is None
