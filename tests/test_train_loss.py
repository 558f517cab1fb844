"""The loss: targets, weights, masks."""

import pytest
import torch
from diffusers import DDPMScheduler, PNDMScheduler

from spectral_fusion.base.diffusion import min_snr_weights, noise_scheduler, prediction_target
from spectral_fusion.errors import InputError
from spectral_fusion.training.loss import masked_mse


def scheduler(prediction_type: str) -> DDPMScheduler:
    return noise_scheduler(PNDMScheduler(prediction_type=prediction_type, beta_schedule="scaled_linear"))


def test_the_target_of_epsilon_prediction_is_the_noise() -> None:
    latents, noise, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([3, 900])
    assert torch.equal(prediction_target(scheduler("epsilon"), latents, noise, t), noise)


def test_the_target_of_v_prediction_gives_back_latents_and_noise() -> None:
    """x = a z + s e and v = a e - s z, so a x - s v = z and s x + a v = e."""
    process = scheduler("v_prediction")
    latents, noise, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([3, 900])
    noisy, v = process.add_noise(latents, noise, t), prediction_target(process, latents, noise, t)
    a = process.alphas_cumprod[t].sqrt()[:, None, None, None]
    s = (1 - process.alphas_cumprod[t]).sqrt()[:, None, None, None]
    assert torch.allclose(a * noisy - s * v, latents, atol=1e-5)
    assert torch.allclose(s * noisy + a * v, noise, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_the_paper(prediction_type: str) -> None:
    process, t = scheduler(prediction_type), torch.tensor([1, 200, 500, 990])
    snr = process.alphas_cumprod[t] / (1 - process.alphas_cumprod[t])
    wanted = snr.clamp(max=5) / (snr if prediction_type == "epsilon" else snr + 1)
    assert torch.allclose(min_snr_weights(process, t, 5.0), wanted, rtol=1e-4)
    assert torch.equal(min_snr_weights(process, t, 0.0), torch.ones(4))


def test_min_snr_weights_are_finite_at_zero_terminal_snr() -> None:
    for prediction_type in ("epsilon", "v_prediction"):
        process = DDPMScheduler(prediction_type=prediction_type, rescale_betas_zero_snr=True)
        assert torch.isfinite(min_snr_weights(process, torch.tensor([999]), 5.0)).all()


def test_a_mask_hides_errors_and_does_not_weaken_the_rest() -> None:
    target = torch.zeros(1, 4, 8, 8)
    prediction = torch.ones(1, 4, 8, 8)
    prediction[..., 4:] = 100
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    assert masked_mse(prediction, target, mask).item() == pytest.approx(1.0)
    assert masked_mse(prediction, target, torch.ones(1, 1, 8, 8)) == masked_mse(prediction, target)


def test_a_mask_that_a_crop_left_empty_gives_no_loss() -> None:
    assert masked_mse(torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)).item() == 0


def test_another_prediction_type_is_refused() -> None:
    with pytest.raises(InputError, match="sample"):
        scheduler("sample")
