"""What a base predicts: as the user says, as the file says, as the model answers."""

import logging

import pytest
import torch
from torch import Tensor

from spectral_fusion.base.condition import Condition
from spectral_fusion.base.prediction import settle_prediction
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.base.sdxl import StableDiffusionXL
from spectral_fusion.identify import Prediction
from tiny import tiny_base
from tiny_sdxl import tiny_sdxl

SILENT = Prediction("epsilon")


def answering(base: StableDiffusion, kind: str, monkeypatch: pytest.MonkeyPatch) -> StableDiffusion:
    """The base with a model that knows that there is no picture behind the noise."""
    alphas = base.noise_schedule.alphas_cumprod

    def predict(noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        alpha = alphas[times][:, None, None, None]
        noise = noisy / (1 - alpha).sqrt()
        return noise if kind == "epsilon" else alpha.sqrt() * noise

    monkeypatch.setattr(base, "predict", predict)
    return base


def predicts(base: StableDiffusion) -> str:
    return base.pipeline.scheduler.config.prediction_type


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_silent_file_is_asked(
    family: str, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = tiny_base() if family == "sd" else StableDiffusionXL(tiny_sdxl())
    with caplog.at_level(logging.WARNING):
        settle_prediction(answering(base, kind, monkeypatch), SILENT)
    assert predicts(base) == kind
    assert ("it predicts v" in caplog.text) == (kind == "v_prediction")  # said aloud where it is not the usual type


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_cpu_answers_in_float32_whatever_the_file_holds(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base() if family == "sd" else StableDiffusionXL(tiny_sdxl())
    base.cast(torch.float16)
    before = {name: weight.clone() for name, weight in base.unet.state_dict().items()}
    seen: list[torch.dtype] = []
    whole = base.predict

    def predict(noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        seen.append(base.unet.dtype)
        return whole(noisy, times, condition)

    monkeypatch.setattr(base, "predict", predict)
    settle_prediction(base, SILENT)
    assert seen == [torch.float32]
    for name, weight in base.unet.state_dict().items():
        assert weight.dtype == torch.float16
        assert torch.equal(weight, before[name])


def test_a_file_that_says_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    base = answering(tiny_base(), "v_prediction", monkeypatch)
    settle_prediction(base, Prediction("epsilon", source="its metadata modelspec.prediction_type"))
    assert predicts(base) == "epsilon"
    settle_prediction(base, None)  # a folder, whose scheduler says it
    assert predicts(base) == "epsilon"


def test_the_user_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    base = answering(tiny_base(), "epsilon", monkeypatch)
    settle_prediction(base, SILENT, "v_prediction")
    assert predicts(base) == "v_prediction"


def test_noise_prediction_has_no_zero_terminal_snr() -> None:
    base = StableDiffusionXL(tiny_sdxl(prediction_type="v_prediction", zero_snr=True))
    settle_prediction(base, None, "epsilon")
    assert not base.pipeline.scheduler.config.rescale_betas_zero_snr
    assert float(base.noise_schedule.alphas_cumprod[-1]) > 1e-3


def test_sd2_that_predicts_noise_is_of_512_pixels() -> None:
    base = tiny_base(prediction_type="v_prediction")
    base.unet.register_to_config(cross_attention_dim=1024, sample_size=96)
    settle_prediction(base, None, "epsilon")
    assert base.unet.config.sample_size == 64
