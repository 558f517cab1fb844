"""The switches for small cards change where models lie, not what they compute."""

from pathlib import Path

import pytest
import torch

from spectral_fusion.base.condition import Condition
from spectral_fusion.base.load import open_base, own_dtype
from spectral_fusion.base.sdxl import StableDiffusionXL
from spectral_fusion.concept import Concept, Library
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.training import TrainConfig, train_concept
from tiny_sdxl import tiny_sdxl
from training import draw_photos


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "base"
    tiny_sdxl().to(torch.float16).save_pretrained(folder)
    return folder


def trained(base: Path, folder: Path, *, low_memory: bool) -> Concept:
    config = TrainConfig(
        name="rex", class_word="dog", base=str(base), rank=4, steps=3, distillation_prompts=0, low_memory=low_memory
    )
    return train_concept(draw_photos(folder / "photos"), config, library=Library(folder / f"library-{low_memory}"))


def test_the_precision_of_a_bases_files(half: Path, tmp_path: Path) -> None:
    assert own_dtype(half) == torch.float16
    assert own_dtype("toybox") == torch.float16
    tiny_sdxl().save_pretrained(tmp_path / "single")
    assert own_dtype(tmp_path / "single") == torch.float32
    assert own_dtype("somebody/of-the-hub") == torch.float32


def test_a_training_learns_the_same(half: Path, tmp_path: Path) -> None:
    plain, small = (trained(half, tmp_path, low_memory=switch) for switch in (False, True))
    assert plain.layers.keys() == small.layers.keys()
    for layer in plain.layers:
        torch.testing.assert_close(plain.factors(layer).up, small.factors(layer).up, rtol=1e-4, atol=1e-7)


def test_low_memory_computes_activations_again() -> None:
    config = TrainConfig(name="rex", class_word="dog", low_memory=True)
    base = StableDiffusionXL(tiny_sdxl())
    assert config.resolved(base.presets("additive", "balanced"), "fp32").gradient_checkpointing


def test_only_what_is_at_work_in_a_step_is_on_the_card() -> None:
    def at_work(**rates: float) -> list[str]:
        config = TrainConfig(name="rex", class_word="dog", learning_rate_text_encoder=0.0, **rates)
        resolved = config.resolved(base.presets("additive", "balanced"), "fp32")
        return [part for part in base.parts if resolved.learns(part)]

    base = StableDiffusionXL(tiny_sdxl())
    assert at_work(learning_rate_embedding=0.0) == ["unet"]
    assert at_work(learning_rate_embedding=1e-3) == list(base.parts)


def test_an_offloaded_base_draws_the_same(half: Path) -> None:
    settings = GenerateConfig("a red dog", num_inference_steps=2, sampler="Euler")
    (plain,) = generate(open_base(half, dtype=torch.float32), settings)
    base = open_base(half, dtype=torch.float32)
    base.offload("cpu")
    (small,) = generate(base, settings)
    assert small.image.tobytes() == plain.image.tobytes()
    assert base.device == torch.device("cpu")


def test_parts_are_placed() -> None:
    base = StableDiffusionXL(tiny_sdxl())
    base.place("meta", ["unet"])
    assert base.device == torch.device("meta")
    assert {base.pipeline.text_encoder.device.type, base.vae.device.type} == {"cpu"}
    told = base.condition(["a dog"]).to(torch.device("meta"))
    assert isinstance(told, Condition)
    assert {told.embeds.device.type, told.pooled.device.type} == {"meta"}  # type: ignore[union-attr]
