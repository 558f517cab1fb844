"""Samplers by the names that users know."""

import pytest
import torch
from torch import Tensor

from spectral_fusion.base.condition import Condition
from spectral_fusion.base.samplers import SAMPLERS, make_sampler
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from tiny import sd1_scheduler


def sampled(config: dict[str, object], name: str, *, answers: str, spread: float) -> Tensor:
    """What a perfect model of N(clean, spread^2) leads to in 20 steps, less the clean latent: noise of that spread.

    Args:
        answers: the prediction type in which the model answers, whatever the sampler takes it for.
    """
    scheduler = make_sampler({**sd1_scheduler().config, **config}, name)
    scheduler.set_timesteps(20)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 4, 16, 16, generator=generator)
    sample = torch.randn(1, 4, 16, 16, generator=generator) * scheduler.init_noise_sigma
    takes_generator = "generator" in scheduler.step.__code__.co_varnames
    for t in scheduler.timesteps:
        noisy = scheduler.scale_model_input(sample, t)
        alpha = scheduler.alphas_cumprod[int(t)]
        share = spread**2 * alpha.sqrt() / (spread**2 * alpha + 1 - alpha)
        expected = clean + share * (noisy - alpha.sqrt() * clean)
        noise = (noisy - alpha.sqrt() * expected) / (1 - alpha).sqrt()
        predicted = noise if answers == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * expected
        options = {"generator": generator} if takes_generator else {}
        sample = scheduler.step(predicted, t, sample, **options).prev_sample
    return sample - clean


ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_each_sampler_recovers_a_clean_latent_from_a_perfect_model(name: str, prediction_type: str) -> None:
    """A model that always knows the clean latent must lead every sampler to it, in either prediction type."""
    error = sampled({"prediction_type": prediction_type}, name, answers=prediction_type, spread=0.0)
    assert error.abs().mean() < 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_begins_at_pure_noise_with_zero_terminal_snr(name: str) -> None:
    assert sampled(ZERO_SNR, name, answers="v_prediction", spread=0.0).abs().mean() < 0.1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("taken_for", ["epsilon", "v_prediction"])
def test_a_model_taken_for_the_other_prediction_type_gives_other_pictures(name: str, taken_for: str) -> None:
    """A model of a distribution: taken right, its spread comes out; taken wrong, the same noise ends elsewhere."""
    other = "v_prediction" if taken_for == "epsilon" else "epsilon"
    right = sampled({"prediction_type": taken_for}, name, answers=taken_for, spread=0.5)
    wrong = sampled({"prediction_type": taken_for}, name, answers=other, spread=0.5)
    assert right.std() == pytest.approx(0.5, abs=0.2)
    assert (wrong - right).std() > 0.5 * right.std()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_noise_schedule_of_every_sampler_is_rescaled(name: str) -> None:
    assert float(make_sampler({**sd1_scheduler().config, **ZERO_SNR}, name).alphas_cumprod[-1]) < 1e-6


def test_the_pipeline_keeps_its_own(shared_base: StableDiffusion) -> None:
    before = shared_base.pipeline.scheduler
    made = make_sampler(before.config, "euler A")
    assert shared_base.pipeline.scheduler is before
    assert type(made).__name__ == "EulerAncestralDiscreteScheduler"
    assert made.config.beta_schedule == before.config.beta_schedule


def test_unknown_samplers(shared_base: StableDiffusion) -> None:
    with pytest.raises(InputError, match=r"did you mean 'DPM\+\+ 2M'"):
        make_sampler(shared_base.pipeline.scheduler.config, "DPM+ 2M")
    with pytest.raises(InputError, match="choose one of"):
        make_sampler(shared_base.pipeline.scheduler.config, "zzzzzz")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 51, 999, 1000])
def test_each_sampler_goes_through_its_steps_or_refuses_them(
    shared_base: StableDiffusion, monkeypatch: pytest.MonkeyPatch, name: str, steps: int
) -> None:
    monkeypatch.setattr(shared_base, "predict", lambda noisy, time, condition: 0.9 * noisy)
    noise = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    told, source = Condition(torch.zeros(1, 1, 1)), torch.Generator().manual_seed(0)
    refused = ""
    try:
        *_, last = shared_base.denoise(told, noise, sampler=name, steps=steps, generator=source)
    except InputError as error:
        refused = str(error)
    assert f"{name} cannot take {steps} steps" in refused if refused else torch.isfinite(last.latents).all()
    assert not refused or steps > 50
