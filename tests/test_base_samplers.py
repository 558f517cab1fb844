"""Samplers by the names that users know."""

import pytest
import torch

from spectral_fusion.base.samplers import SAMPLERS, make_sampler
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from tiny import sd1_scheduler


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_each_sampler_recovers_a_clean_latent_from_a_perfect_model(name: str, prediction_type: str) -> None:
    """A model that always knows the clean latent must lead every sampler to it, in either prediction type."""
    scheduler = make_sampler(sd1_scheduler(prediction_type).config, name)
    scheduler.set_timesteps(20)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 4, 8, 8, generator=generator)
    sample = torch.randn(1, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    alphas_cumprod = scheduler.alphas_cumprod
    takes_generator = "generator" in scheduler.step.__code__.co_varnames
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, t)
        alpha = alphas_cumprod[int(t)]
        noise = (scaled - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        predicted = noise if prediction_type == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        options = {"generator": generator} if takes_generator else {}
        sample = scheduler.step(predicted, t, sample, **options).prev_sample
    assert (sample - clean).abs().mean() < 0.1


def test_the_pipeline_keeps_its_own(shared_base: StableDiffusion) -> None:
    before = shared_base.pipeline.scheduler
    made = make_sampler(shared_base.pipeline.scheduler.config, "euler A")
    assert shared_base.pipeline.scheduler is before
    assert type(made).__name__ == "EulerAncestralDiscreteScheduler"
    assert made.config.beta_schedule == before.config.beta_schedule


def test_unknown_samplers(shared_base: StableDiffusion) -> None:
    with pytest.raises(InputError, match=r"did you mean 'DPM\+\+ 2M'"):
        make_sampler(shared_base.pipeline.scheduler.config, "DPM+ 2M")
    with pytest.raises(InputError, match="choose one of"):
        make_sampler(shared_base.pipeline.scheduler.config, "zzzzzz")
