"""The second edition's training: seeded, resumed without loss, its latents drawn once and used several times."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from spectral_fusion.errors import InputError
from spectral_fusion.toybox.data import Drawings
from spectral_fusion.toybox.optimizer import is_matrix, orthogonalise
from spectral_fusion.toybox.runner import Runner, Settings
from spectral_fusion.toybox.stages import make_runner
from spectral_fusion.toybox128 import data, models
from spectral_fusion.toybox128.latents import LatentShards
from spectral_fusion.toybox128.stages import STAGES, Denoiser, denoiser_loss, spread_timesteps


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return models.make_vae().eval()


def _shards(vae, folder, seed=0, **changes) -> LatentShards:
    sizes = {"size": 4, "window": 2, "reuse": 2, **changes}
    return LatentShards(data.captioned_record, vae, data.tokenize([""])[0], seed, folder, **sizes)


def _equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_batches_are_the_same_whether_begun_or_continued(vae, tmp_path) -> None:
    whole = list(_shards(vae, tmp_path / "whole").batches(4, 0, 8))
    broken = list(_shards(vae, tmp_path / "broken").batches(4, 0, 3))
    broken += _shards(vae, tmp_path / "broken").batches(4, 3, 8)
    assert all(_equal(a, b) for a, b in zip(whole, broken, strict=True))
    assert whole[0]["latents"].shape == (4, models.LATENT_CHANNELS, 16, 16)
    assert whole[0]["tokens"].dtype == torch.long


def test_a_lost_shard_is_drawn_again_and_old_ones_go(vae, tmp_path) -> None:
    first = list(_shards(vae, tmp_path).batches(4, 0, 8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00002.safetensors", "00003.safetensors"]
    (tmp_path / "00003.safetensors").unlink()
    again = list(_shards(vae, tmp_path).batches(4, 6, 8))
    assert all(_equal(a, b) for a, b in zip(first[6:], again, strict=True))


def test_shards_of_another_autoencoder_are_not_used(vae, tmp_path) -> None:
    (before,) = _shards(vae, tmp_path).batches(4, 0, 1)
    torch.manual_seed(1)
    (after,) = _shards(models.make_vae().eval(), tmp_path).batches(4, 0, 1)
    assert not torch.equal(before["latents"], after["latents"])


def test_some_captions_are_left_out(vae, tmp_path) -> None:
    empty = data.tokenize([""])[0]
    (batch,) = _shards(vae, tmp_path, drop=0.5).batches(64, 0, 1)
    share = (batch["tokens"] == empty).all(1).float().mean()
    assert 0.3 < share < 0.7


def test_the_first_pictures_are_the_easiest() -> None:
    def things(seen: int) -> float:
        cells = [data.captioned_record(random.Random(i), seen)["cells"][0] for i in range(60)]
        classes = [set(each.unique().tolist()) - set(range(12)) for each in cells]
        return sum(map(len, classes)) / len(classes)

    assert things(0) < things(data.EASY) - 0.3


def test_timesteps_are_spread_over_all_noises() -> None:
    timesteps = spread_timesteps(100, torch.Generator().manual_seed(0)).sort().values
    assert timesteps.min() >= 0
    assert timesteps.max() < 1000
    assert timesteps.diff().max() < 60


def test_the_denoiser_learns_from_noise_and_cells_and_leaves_the_autoencoder_alone(vae, tmp_path) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(vae)
    (batch,) = _shards(vae, tmp_path).batches(2, 0, 1)
    denoiser_loss(denoiser, batch, torch.Generator().manual_seed(0)).backward()
    missing = {name for name, weight in denoiser.named_parameters() if weight.requires_grad and weight.grad is None}
    assert not missing
    assert all(weight.grad is None for weight in vae.parameters())


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 6, 20, generator=torch.Generator().manual_seed(0))
    for each in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalise(each))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_tables_and_outer_layers_are_no_matrices() -> None:
    weight = torch.zeros(3, 3)
    assert is_matrix("unet.mid_block.attentions.0.proj_in.weight", weight)
    assert is_matrix("unet.time_embedding.linear_1.weight", weight)
    outer = ("unet.conv_in.weight", "text_encoder.embeddings.token_embedding.weight")
    assert not any(is_matrix(name, weight) for name in outer)


def _toy(folder, optimizer="muon", steps=12) -> Runner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 4))

    def example(rng: random.Random) -> dict[str, torch.Tensor]:
        x = torch.tensor([rng.gauss(0, 1) for _ in range(4)])
        return {"x": x, "y": x.flip(0)}

    def loss(batch, generator):
        return (model(batch["x"]) - batch["y"]).square().mean()

    settings = Settings("toy", steps, 8, 2e-2, warmup=3, optimizer=optimizer, autocast=True)
    return Runner(settings, model, Drawings(example, 0, "toy"), loss, folder)


@pytest.mark.parametrize("stop", [1, 7])
def test_a_run_with_orthogonalised_momentum_is_resumed_bit_for_bit(tmp_path, stop) -> None:
    whole = _toy(tmp_path / "whole")
    whole.run()
    _toy(tmp_path / "broken").run(stop=stop)
    continued = _toy(tmp_path / "broken")
    continued.run()
    assert all(torch.equal(a, b) for a, b in zip(whole.average, continued.average, strict=True))


def test_a_run_is_not_resumed_with_another_optimizer(tmp_path) -> None:
    _toy(tmp_path).run(stop=2)
    with pytest.raises(InputError, match="optimizer"):
        _toy(tmp_path, optimizer="adamw")


def test_orthogonalised_momentum_lowers_the_loss(tmp_path) -> None:
    losses: list[float] = []
    _toy(tmp_path, steps=200).run(lambda step, loss: losses.append(loss))
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])


def test_a_stage_that_needs_the_autoencoder_says_so(tmp_path) -> None:
    with pytest.raises(InputError, match="train stage 'vae' first"):
        make_runner("unet", tmp_path, stages=STAGES)


def test_the_denoiser_is_resumed_bit_for_bit(vae, tmp_path, monkeypatch) -> None:
    def small(name, seed, folder, denoiser):
        return _shards(vae, folder / "latents", seed, size=8)

    monkeypatch.setitem(STAGES, "unet", replace(STAGES["unet"], source=small, batch=2))

    def trained(folder, *stops):
        for stop in stops:
            runner = make_runner("unet", folder, stages=STAGES, steps=3, vae=vae)
            runner.run(stop=stop)
        return runner.average

    whole, broken = trained(tmp_path / "whole", 3), trained(tmp_path / "broken", 1, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole, broken, strict=True))
