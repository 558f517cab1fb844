"""Toybox's training loop: seeded, and resumed without loss."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from spectral_fusion.errors import InputError
from spectral_fusion.toybox.data import Drawings
from spectral_fusion.toybox.models import make_vae
from spectral_fusion.toybox.optimizer import muon
from spectral_fusion.toybox.runner import Runner, Settings
from spectral_fusion.toybox.stages import make_runner


def _example(rng: random.Random) -> dict[str, torch.Tensor]:
    x = torch.tensor([rng.gauss(0, 1) for _ in range(4)])
    return {"x": x, "y": x.flip(0)}


def _runner(folder, steps=12, **changes) -> Runner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 4))
    settings = Settings("toy", steps, 8, changes.pop("learning_rate", 1e-2), warmup=3, **changes)

    def loss(batch, generator):
        noise = 0.1 * torch.randn(batch["x"].shape, generator=generator)
        return (model(batch["x"] + noise) - batch["y"]).square().mean()

    return Runner(settings, model, Drawings(_example, 0, "toy"), loss, folder)


def _weights(runner: Runner) -> list[torch.Tensor]:
    return [weight.clone() for weight in runner.use_average().parameters()]


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_run_stopped_and_continued_ends_as_an_unbroken_one(tmp_path, stop):
    whole = _runner(tmp_path / "whole")
    whole.run()
    _runner(tmp_path / "broken").run(stop=stop)
    continued = _runner(tmp_path / "broken")
    assert continued.step == stop
    continued.run()
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole), _weights(continued), strict=True))


def test_an_interrupted_run_is_saved(tmp_path):
    runner = _runner(tmp_path)

    def interrupt(step, loss):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(interrupt)
    assert _runner(tmp_path).step == 4


def test_training_lowers_the_loss(tmp_path):
    losses = []
    _runner(tmp_path, steps=300).run(lambda step, loss: losses.append(loss))
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])


def test_a_checkpoint_of_other_settings_is_refused_and_kept(tmp_path):
    _runner(tmp_path).run(stop=3)
    before = (tmp_path / "toy.checkpoint.safetensors").read_bytes()
    with pytest.raises(InputError, match="learning_rate"):
        _runner(tmp_path, learning_rate=5e-3)
    assert (tmp_path / "toy.checkpoint.safetensors").read_bytes() == before


def test_a_run_can_begin_with_finished_weights(tmp_path):
    finished = _runner(tmp_path / "first")
    finished.run()
    weights = {name: weight.clone() for name, weight in finished.use_average().state_dict().items()}
    second = _runner(tmp_path / "second")
    second.begin_with(weights)
    assert all(torch.equal(weights[name], weight) for name, weight in second.use_average().state_dict().items())
    with pytest.raises(InputError, match="do not fit"):
        second.begin_with({name: weight[:1] for name, weight in weights.items()})


def test_the_decoder_learns_without_its_encoder_and_is_resumed(tmp_path):
    def trained(folder, *stops):
        for stop in stops:
            torch.manual_seed(1)
            vae = make_vae()
            runner = make_runner("decoder", folder, steps=2, vae=vae)
            runner.run(stop=stop)
        return runner.use_average()

    torch.manual_seed(1)
    before = make_vae().state_dict()
    whole, broken = trained(tmp_path / "whole", 2), trained(tmp_path / "broken", 1, 2)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, broken.state_dict()[name])
        frozen = name.startswith(("encoder.", "quant_conv."))
        assert torch.equal(weight, before[name]) == frozen, name


def test_gradients_may_come_in_another_memory_format() -> None:
    """A compiled model hands them out as it likes; the fused optimizer walks them by address."""
    after = []
    for layout in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last))
        optimizer = muon([("conv_in.weight", weight)], 0.01)
        for _ in range(3):
            weight.grad = torch.randn(8, 4, 3, 3).contiguous(memory_format=layout)
            optimizer.step()
        after.append(weight.detach())
    torch.testing.assert_close(after[0], after[1], rtol=0, atol=0)
