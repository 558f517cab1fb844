"""The switches for small cards change where models lie, not what they compute."""

from pathlib import Path
from typing import Any

import pytest
import torch

from card import Card, only_blocks_at_work
from concepts import make_concept
from spectral_fusion.adapter.masks import Masks
from spectral_fusion.adapter.placed import PlacedDelta, placed
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.interface import Base
from spectral_fusion.base.live import live_deltas
from spectral_fusion.base.load import base_of, open_base, own_dtype
from spectral_fusion.base.offload import LayerVisits, work_device
from spectral_fusion.base.sdxl import StableDiffusionXL
from spectral_fusion.concept import Concept, Library
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.spectral import Band, Triplets, decompose
from spectral_fusion.training import TrainConfig, train_concept
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.loop import Loop
from spectral_fusion.training.model import target_layers, training_model
from spectral_fusion.training.single import subject_pictures, train_adapter
from tiny import tiny_pipeline
from tiny_families import FAMILIES
from tiny_sdxl import tiny_sdxl
from training import draw_photos


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "base"
    tiny_sdxl().to(torch.float16).save_pretrained(folder)
    return folder


def trained(base: Path, folder: Path, **switches: bool) -> Concept:
    config = TrainConfig(
        name="rex", class_word="dog", base=str(base), rank=4, steps=3, distillation_prompts=0, **switches
    )
    library = Library(folder / "-".join(("library", *switches)))
    return train_concept(draw_photos(folder / "photos"), config, library=library)


def test_the_precision_of_a_bases_files(half: Path, tmp_path: Path) -> None:
    assert own_dtype(half) == torch.float16
    assert own_dtype("toybox") == torch.float16
    tiny_sdxl().save_pretrained(tmp_path / "single")
    assert own_dtype(tmp_path / "single") == torch.float32
    assert own_dtype("somebody/of-the-hub") == torch.float32


def test_a_training_learns_the_same(half: Path, tmp_path: Path) -> None:
    plain, small = trained(half, tmp_path), trained(half, tmp_path, low_memory=True)
    smallest = trained(half, tmp_path, offload_blocks=True)
    assert plain.layers.keys() == small.layers.keys() == smallest.layers.keys()
    for layer in plain.layers:
        torch.testing.assert_close(plain.factors(layer).up, small.factors(layer).up, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(small.factors(layer).up, smallest.factors(layer).up, rtol=0, atol=0)


def test_low_memory_computes_activations_again() -> None:
    config = TrainConfig(name="rex", class_word="dog", low_memory=True)
    base = StableDiffusionXL(tiny_sdxl())
    assert config.resolved(base.presets("additive", "balanced"), "fp32").gradient_checkpointing


def settings_of(base: Base) -> tuple[ResolvedConfig, Band, dict[str, Triplets]]:
    """Of a short training that learns the denoiser alone, with gradient checkpointing; and its bands."""
    rates = {"learning_rate_text_encoder": 0.0, "learning_rate_embedding": 0.0}
    config = TrainConfig(
        name="rex",
        class_word="dog",
        rank=2,
        steps=2,
        distillation_prompts=0,
        offload_blocks=True,
        resolution=32,
        **rates,
    ).resolved(base.presets("additive", "balanced"), "fp32")
    band = Band(0, config.rank, config.band_side)
    return config, band, decompose({name: layer.weight for name, layer in target_layers(base, config).items()}, band)


def values_of(loop: Loop) -> dict[str, torch.Tensor]:
    loop.check_moved()
    return {name: value.detach().clone() for name, value in loop.parameters.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_come_and_go_learn_the_same(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies on the CPU in between is not read there: it holds no numbers."""
    photos, learned = ImageFolder.scan(draw_photos(tmp_path)), []
    for visits in (False, True):
        base = base_of(FAMILIES[family]())
        config, band, bases = settings_of(base)
        if visits:
            base.place("cpu", list(base.parts), layers=True)
            away = {}
            for weight in base.denoiser.parameters():
                empty = torch.full_like(weight, float("nan"))
                away[empty.data_ptr()], weight.data = weight.data, empty
            monkeypatch.setattr(LayerVisits, "fetch", lambda _, weight, away=away: away[weight.data_ptr()])
        pictures = [subject_pictures(base, photos, config)]
        learned.append(train_adapter(base, pictures, config, band, None, values_of, bases=bases))
        if visits:
            assert all(weight.isnan().all() for weight in base.denoiser.parameters()), "each went back"
    assert learned[0].keys() == learned[1].keys()
    for name, value in learned[0].items():
        torch.testing.assert_close(learned[1][name], value, rtol=0, atol=0)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "z-image"])  # it cuts texts by their numbers
def test_layers_that_come_and_go_meet_nothing_beside_the_card(family: str) -> None:
    base = base_of(FAMILIES[family]())
    config, band, bases = settings_of(base)
    told = base.condition(["a dog"])
    with Card():
        base.place("meta", [next(iter(base.parts))], layers=True)
        assert base.device == torch.device("meta")
        with training_model(base, config, band, bases=bases):
            noisy = torch.zeros(1, *base.latent_shape(32, 32)).to("meta")
            answer = base.predict(noisy, torch.full((1,), 500.0, device="meta"), told.to(base.device))
            answer.sum().backward()
            trained = [weight for weight in base.denoiser.parameters() if weight.requires_grad]
            assert all(weight.is_meta and weight.grad is not None and weight.grad.is_meta for weight in trained)
            frozen = [weight for weight in base.denoiser.parameters() if not weight.requires_grad]
            assert not any(weight.is_meta for weight in frozen), "each went back"


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


@torch.no_grad()
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "z-image"])  # it cuts texts by their numbers
def test_one_model_at_a_time_lies_on_the_card(family: str) -> None:
    """Nothing on the card meets what lies beside it; numbers are not looked at."""

    def on_card() -> list[torch.nn.Module]:
        return [model for model in models if next(model.parameters()).is_meta]

    base = base_of(FAMILIES[family]())
    models = [*base.parts.values(), *base.frozen]
    with Card():
        base.offload("meta")
        assert base.device == torch.device("meta")
        assert not on_card()
        told = base.condition(["a dog"])
        assert len(on_card()) == 1
        assert on_card()[0] is not base.denoiser
        noisy = torch.zeros(1, *base.latent_shape(32, 32)).to(base.device)
        answer = base.predict(noisy, torch.full((1,), 500.0, device="meta"), told.to(base.device))
        assert on_card() == [base.denoiser]
        base.decode(answer)
        base.encode(torch.zeros(1, 3, 32, 32))
        assert on_card() == [base.frozen[0]]


def test_weighted_prompts_are_read_where_the_encoder_works(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectral_fusion.base import encoding

    base = base_of(tiny_pipeline())
    base.offload("meta")
    asked: list[Any] = []
    monkeypatch.setattr(encoding, "Compel", lambda *_, **options: asked.append(options["device"]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        base.condition(["a (red:1.2) dog"], weighted=True)
    assert asked == [torch.device("meta")]
    assert work_device(base.text_encoder) == torch.device("meta")


@torch.no_grad()
def test_deltas_beside_the_weights_come_to_the_card_too() -> None:
    base = base_of(tiny_pipeline())
    concept = make_concept(base, targets=("to_q", "to_k"))
    factors = {name: concept.factors(name) for name in concept.layers if name.startswith("unet.")}
    told, layers = base.condition(["a dog"]), base.layers()
    kinds = {name: base.layer_kind(name) for name in factors}
    with Card():
        base.offload("meta")
        noisy, time = torch.zeros(1, *base.latent_shape(32, 32)).to("meta"), torch.full((1,), 500.0, device="meta")
        for beside in (live_deltas(base, factors), placed(layers, kinds, [PlacedDelta(factors)], Masks((), 16, 16))):
            with beside:
                assert base.predict(noisy, time, told.to(base.device)).is_meta


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_that_are_not_at_work_are_not_needed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GenerateConfig("a red dog", num_inference_steps=2, sampler="Euler", height=32, width=32)
    (plain,) = generate(base_of(FAMILIES[family]()), settings)
    base = base_of(FAMILIES[family]())
    base.offload("cpu", blocks=True)
    with only_blocks_at_work(base.denoiser, monkeypatch) as most:
        (small,) = generate(base, settings)
    assert small.image.tobytes() == plain.image.tobytes()
    assert most == [2], "a block, and what stands in no row"


def test_concepts_are_fused_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GenerateConfig("a <rex> dog", num_inference_steps=2, sampler="Euler")
    pictures = []
    for blocks in (False, True):
        base = base_of(tiny_pipeline())
        if blocks:
            base.offload("cpu", blocks=True)
        fusion = fuse(base, {make_concept(base, size=0.2): 1.0})
        pictures += generate(base, settings)
        fusion.undo()
        pictures += generate(base, GenerateConfig("a dog", num_inference_steps=2, sampler="Euler"))
    drawn = [picture.image.tobytes() for picture in pictures]
    assert drawn[:2] == drawn[2:]
    assert drawn[0] != drawn[1]
